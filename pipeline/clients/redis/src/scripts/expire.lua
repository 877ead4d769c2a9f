-- Drops the documents that are past their time; counters stay. KEYS: hashes. Gives how many were dropped.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local dropped = 0
for _, key in ipairs(KEYS) do
  local stored = redis.call('HMGET', key, 'expires_at_ms', 'VersionId:json')
  if stored[1] and stored[2] and tonumber(stored[1]) < now then
    redis.call('HDEL', key, 'json', 'VersionId:json')
    dropped = dropped + 1
  end
end
return dropped
