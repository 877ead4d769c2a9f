-- Tells that versions exist. KEYS: the generation, then hashes. ARGV: note_s, then a version for each.
-- A document below its version is dropped, and none below it is answered until the counter is there.
local generation = redis.call('GET', KEYS[1])
for i = 2, #KEYS do
  local key, version = KEYS[i], tonumber(ARGV[i])
  local stored = redis.call('HMGET', key, 'VersionId:latest', 'VersionId:noted', 'generation')
  local latest = generation and stored[3] == generation and stored[1]
  if tonumber(latest or '0') < version and tonumber(stored[2] or '0') < version then
    redis.call('HSET', key, 'VersionId:noted', ARGV[i])
    redis.call('HDEL', key, 'json', 'VersionId:json')
    if not latest then redis.call('EXPIRE', key, ARGV[1]) end
  end
end
return 1
