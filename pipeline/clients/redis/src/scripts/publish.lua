-- Publishes changes in order: compare with the counter, store, publish, all in one step.
-- KEYS: the publisher's sequence, then one hash per change.
-- ARGV: document_ms, key_s, slack_ms, sequence_s, then eight per change:
--   channel, version, previous version or "", flags (r: resync, k: known counter only, g: gone),
--   the patch's message and the whole message around its document, all without their closing brace.
-- Gives one letter per change: P patch, W whole, S stale, U unknown counter.
local document_ms, key_s, slack_ms, sequence_s = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local time = redis.call('TIME')
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + document_ms
local expires_text = string.format('%.0f', expires)
local sequence = tonumber(redis.call('GET', KEYS[1]) or '0')
local before = sequence
local outcomes = {}
for i = 2, #KEYS do
  local at = 5 + (i - 2) * 8
  local key, version, flags = KEYS[i], ARGV[at + 1], ARGV[at + 3]
  local resync = string.find(flags, 'r', 1, true)
  local stored = redis.call('HMGET', key, 'VersionId:latest', 'expires_at_ms')
  local latest = stored[1]
  local outcome = 'W'
  if not latest then
    if string.find(flags, 'k', 1, true) then outcome = 'U' end
  elseif latest == version then
    if not resync then outcome = 'S' end
  elseif tonumber(latest) > tonumber(version) then
    outcome = 'S'
  elseif latest == ARGV[at + 2] and not resync then
    outcome = 'P'
  end
  if outcome == 'P' or outcome == 'W' then
    local document = ARGV[at + 6]
    redis.call('HSET', key, 'VersionId:latest', version, 'VersionId:json', version, 'json', document,
      'tombstone', string.find(flags, 'g', 1, true) and '1' or '0', 'expires_at_ms', expires_text)
    -- A key outlives its document by days: its own expiry need not be exact, and is renewed rarely.
    if not stored[2] or expires - tonumber(stored[2]) > slack_ms then
      redis.call('EXPIRE', key, key_s)
    end
    sequence = sequence + 1
    local message = ARGV[at + 4]
    if outcome == 'W' then message = ARGV[at + 5] .. document .. ARGV[at + 7] end
    redis.call('PUBLISH', ARGV[at], message .. ',"PublisherSeq":' .. string.format('%.0f', sequence) .. '}')
  end
  outcomes[i - 1] = outcome
end
if sequence > before then
  redis.call('SET', KEYS[1], string.format('%.0f', sequence), 'EX', sequence_s)
end
return table.concat(outcomes)
