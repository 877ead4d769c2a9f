-- Publishes changes in order: compare with the counter, store, publish, all in one step.
-- KEYS: the publisher's sequence, then one hash per change.
-- ARGV: document_ms, key_s, slack_ms, sequence_s, then eight per change:
--   channel, version, previous version or "", flags (r: resync, k: known counter only, g: gone),
--   the patch's message and the whole message around its document, all without their closing brace.
-- Gives one letter per change: P patch, W whole, S stale, U unknown counter.
local call, find, format = redis.call, string.find, string.format
local KEYS, ARGV = KEYS, ARGV
local slack_ms = tonumber(ARGV[3])
local time = call('TIME')
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
local expires_text = format('%.0f', expires)
local sequence = tonumber(call('GET', KEYS[1]) or '0')
local before = sequence
local outcomes = {}
local at = 5
for i = 2, #KEYS do
  local key, version, flags = KEYS[i], ARGV[at + 1], ARGV[at + 3]
  local resync, known, gone = false, false, '0'
  if flags ~= '' then
    resync, known = find(flags, 'r', 1, true), find(flags, 'k', 1, true)
    if find(flags, 'g', 1, true) then gone = '1' end
  end
  local stored = call('HMGET', key, 'VersionId:latest', 'expires_at_ms')
  local latest = stored[1]
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
    local document, message = ARGV[at + 6], ARGV[at + 4]
    call('HSET', key, 'VersionId:latest', version, 'VersionId:json', version, 'json', document,
      'tombstone', gone, 'expires_at_ms', expires_text)
    -- A key outlives its document by days: its own expiry need not be exact, and is renewed rarely.
    local known_expiry = stored[2]
    if not known_expiry or expires - known_expiry > slack_ms then
      call('EXPIRE', key, ARGV[2])
    end
    sequence = sequence + 1
    if outcome == 'W' or message == '' then message = ARGV[at + 5] .. document .. ARGV[at + 7] end
    call('PUBLISH', ARGV[at], message .. ',"PublisherSeq":' .. format('%.0f', sequence) .. '}')
  end
  outcomes[i - 1] = outcome
  at = at + 8
end
if sequence > before then
  call('SET', KEYS[1], format('%.0f', sequence), 'EX', ARGV[4])
end
return table.concat(outcomes)
