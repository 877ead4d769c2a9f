-- Publishes changes in order: compare with the counter, publish, store, all in one step.
-- KEYS: the generation, the publisher's sequence, then one hash per change.
-- ARGV: document_ms, key_ms, slack_ms, sequence_s, the highest sequence that this publisher was told, a fresh generation,
--   what stands before a message's number, then eight per change: channel, version, previous version or "", flags (r: resync, k: known counter only, g: gone,
--   c: keep the counter only), the patch's message and the whole message around its document, all without their closing brace.
-- Gives one letter per change (P patch, W whole, S stale, U unknown counter), the sequence, and 1 if data was lost.
local call, find, format = redis.call, string.find, string.format
local KEYS, ARGV = KEYS, ARGV
local key_ms, slack_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expires_text = format('%.0f', now + tonumber(ARGV[1]))
local generation, sequence, told = call('GET', KEYS[1]), tonumber(call('GET', KEYS[2]) or '0'), tonumber(ARGV[5])
local lost = 0
-- A sequence that went back: so did the counters, and nothing stored before is trusted.
if not generation or sequence < told then
  if told > 0 then lost = 1 end
  generation = ARGV[6]
  call('SET', KEYS[1], generation)
  sequence = math.max(sequence, told)
end
local reserved
local outcomes = {}
local at = 8
for i = 3, #KEYS do
  local key, version, flags = KEYS[i], ARGV[at + 1], ARGV[at + 3]
  local resync, known, counter_only, gone = false, false, false, '0'
  if flags ~= '' then
    resync, known = find(flags, 'r', 1, true), find(flags, 'k', 1, true)
    counter_only = find(flags, 'c', 1, true)
    if find(flags, 'g', 1, true) then gone = '1' end
  end
  local stored = call('HMGET', key, 'VersionId:latest', 'generation', 'kept_until_ms')
  local latest = stored[2] == generation and stored[1]
  local outcome = 'W'
  if not latest then
    if known then outcome = 'U' end
  elseif latest == ARGV[at + 2] and not resync then
    outcome = 'P'
  elseif latest == version then
    if not resync then outcome = 'S' end
  elseif tonumber(latest) > tonumber(version) then
    outcome = 'S'
  end
  if outcome == 'P' or outcome == 'W' then
    if not reserved then
      -- The first write: a server that takes none refuses it here, before anybody heard of anything.
      reserved = sequence + #KEYS - 2
      call('SET', KEYS[2], format('%.0f', reserved), 'EX', ARGV[4])
    end
    sequence = sequence + 1
    local document, message = ARGV[at + 6], ARGV[at + 4]
    if outcome == 'W' or message == '' then message = ARGV[at + 5] .. document .. ARGV[at + 7] end
    -- Before the counter moves: one that is refused comes again, and must not be stale then.
    call('PUBLISH', ARGV[at], message .. ARGV[7] .. format('%.0f', sequence) .. '}')
    if counter_only then
      call('HSET', key, 'VersionId:latest', version, 'generation', generation)
    else
      call('HSET', key, 'VersionId:latest', version, 'VersionId:json', version, 'json', document,
        'tombstone', gone, 'expires_at_ms', expires_text, 'generation', generation)
    end
    -- A key outlives its document by days: its own expiry need not be exact, and is renewed rarely.
    local kept_until = tonumber(latest and stored[3] or '0')
    if now + key_ms - kept_until > slack_ms then
      call('PEXPIRE', key, ARGV[2])
      call('HSET', key, 'kept_until_ms', format('%.0f', now + key_ms))
    end
  end
  outcomes[i - 2] = outcome
  at = at + 8
end
if reserved and reserved ~= sequence then
  call('SET', KEYS[2], format('%.0f', sequence), 'EX', ARGV[4])
end
return {table.concat(outcomes), sequence, lost}
