-- Offers a document that was read from the database. KEYS: the generation, its hash. ARGV: version, document, document_ms,
-- note_s. Stored only at the counter's version; a newer version is noted. The counter never moves. Gives 1 if it was stored.
local generation, key, version = redis.call('GET', KEYS[1]), KEYS[2], ARGV[1]
local stored = redis.call('HMGET', key, 'VersionId:latest', 'tombstone', 'VersionId:noted', 'generation')
local latest = generation and stored[4] == generation and stored[1]
if latest == version and stored[2] ~= '1' then
  local time = redis.call('TIME')
  local expires = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])
  redis.call('HSET', key, 'VersionId:json', version, 'json', ARGV[2], 'expires_at_ms', string.format('%.0f', expires))
  return 1
end
if (not latest or tonumber(latest) < tonumber(version)) and tonumber(stored[3] or '0') < tonumber(version) then
  redis.call('HSET', key, 'VersionId:noted', version)
  redis.call('HDEL', key, 'json', 'VersionId:json')
  if not latest then redis.call('EXPIRE', key, ARGV[4]) end
end
return 0
