-- Publishes changes in order: compare with the counter, publish, store, all in one step.
-- KEYS: the generation, the publisher's sequence, then one hash per change.
-- ARGV: document_ms, key_ms, slack_ms, sequence_s, the highest sequence that this publisher was told, a fresh generation,
--   what stands before a message's number, the number that the first message has, then seven per change: channel, version,
--   previous version or "", flags (r: resync, k: known counter only, g: gone, c: keep the counter only), the patch's message,
--   numbered as if all before it were sent, the document, and how the message with the whole document differs: "" if it does
--   not, else how many bytes of the patch's message it begins with and ends with, how many come before the document, and
--   those around it.
-- Gives one letter per change (P patch, W whole, S stale, U unknown counter), the sequence, and 1 if data was lost.
-- Lua reads every byte of every string that it makes: so strings are few, and none is made of a message that comes as it goes.
local call, find, format, sub = redis.call, string.find, string.format, string.sub
local KEYS, ARGV = KEYS, ARGV
local key_ms = tonumber(ARGV[2])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Times of 13 digits: as texts they are in order, too.
local expires, kept_until = format('%d', now + tonumber(ARGV[1])), format('%d', now + key_ms)
local renewed = format('%d', now + key_ms - tonumber(ARGV[3]))
local generation, sequence, told = call('GET', KEYS[1]), tonumber(call('GET', KEYS[2]) or '0'), tonumber(ARGV[5])
local lost = 0
-- A sequence that went back: so did the counters, and nothing stored before is trusted.
if not generation or sequence < told then
  if told > 0 then lost = 1 end
  generation = ARGV[6]
  call('SET', KEYS[1], generation)
  sequence = math.max(sequence, told)
end
local before_number, number = ARGV[7], tonumber(ARGV[8]) - 1
local reserved
local outcomes = {}
local at = 9
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
  number = number + 1
  if outcome == 'P' or outcome == 'W' then
    if not reserved then
      -- The first write: a server that takes none refuses it here, before anybody heard of anything.
      reserved = sequence + #KEYS - 2
      call('SET', KEYS[2], format('%d', reserved), 'EX', ARGV[4])
    end
    sequence = sequence + 1
    local message, document = ARGV[at + 4], ARGV[at + 5]
    local whole = outcome == 'W' and ARGV[at + 6] ~= ''
    if whole or number ~= sequence then
      message = sub(message, 1, -#before_number - #format('%d', number) - 2)
      if whole then
        local head, tail, middle, around = string.match(ARGV[at + 6], '^(%d+),(%d+),(%d+),(.*)$')
        message = sub(message, 1, head) .. sub(around, 1, middle) .. document .. sub(around, middle + 1)
          .. sub(message, #message - tail + 1)
      end
      message = message .. before_number .. format('%d', sequence) .. '}'
    end
    -- Before the counter moves: one that is refused comes again, and must not be stale then.
    call('PUBLISH', ARGV[at], message)
    if counter_only then
      call('HSET', key, 'VersionId:latest', version, 'generation', generation)
    elseif latest then
      call('HSET', key, 'VersionId:latest', version, 'VersionId:json', version, 'json', document,
        'tombstone', gone, 'expires_at_ms', expires)
    else
      call('HSET', key, 'VersionId:latest', version, 'VersionId:json', version, 'json', document,
        'tombstone', gone, 'expires_at_ms', expires, 'generation', generation)
    end
    -- A key outlives its document by days: its own expiry need not be exact, and is renewed rarely.
    if not latest or (stored[3] or '') < renewed then
      call('PEXPIRE', key, ARGV[2])
      call('HSET', key, 'kept_until_ms', kept_until)
    end
  end
  outcomes[i - 2] = outcome
  at = at + 7
end
if reserved and reserved ~= sequence then
  call('SET', KEYS[2], format('%d', sequence), 'EX', ARGV[4])
end
return {table.concat(outcomes), sequence, lost}
