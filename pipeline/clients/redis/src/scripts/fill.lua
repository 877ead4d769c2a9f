-- Offers a document that was read from the database. KEYS: its hash. ARGV: version, document, document_ms, note_s.
-- Stored only at the counter's version; a newer version is noted. The counter never moves. Gives 1 if it was stored.
local stored = redis.call('HMGET', KEYS[1], 'VersionId:latest', 'tombstone', 'VersionId:noted')
local latest, version = stored[1], ARGV[1]
if latest == version and stored[2] ~= '1' then
  local time = redis.call('TIME')
  local expires = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])
  redis.call('HSET', KEYS[1], 'VersionId:json', version, 'json', ARGV[2],
    'expires_at_ms', string.format('%.0f', expires))
  return 1
end
if (not latest or tonumber(latest) < tonumber(version)) and tonumber(stored[3] or '0') < tonumber(version) then
  redis.call('HSET', KEYS[1], 'VersionId:noted', version)
  redis.call('HDEL', KEYS[1], 'json', 'VersionId:json')
  if not latest then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
end
return 0
