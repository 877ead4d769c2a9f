-- Tells that versions exist. KEYS: hashes. ARGV: note_s, then a version for each.
-- A document below its version is dropped, and none below it is answered until the counter is there.
for i, key in ipairs(KEYS) do
  local version = tonumber(ARGV[i + 1])
  local stored = redis.call('HMGET', key, 'VersionId:latest', 'VersionId:noted')
  if tonumber(stored[1] or '0') < version and tonumber(stored[2] or '0') < version then
    redis.call('HSET', key, 'VersionId:noted', ARGV[i + 1])
    redis.call('HDEL', key, 'json', 'VersionId:json')
    if not stored[1] then redis.call('EXPIRE', key, ARGV[1]) end
  end
end
return 1
