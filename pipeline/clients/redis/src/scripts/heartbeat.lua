-- Looks whether a part of the data is the one that a publisher knows, and tells receivers how far he is.
-- KEYS: the generation, the publisher's sequence. ARGV: the highest sequence that this publisher was told, a fresh generation,
-- sequence_s, channel or "" to tell nobody, how often he found data lost, message around that number and the sequence (three
-- parts). Gives the sequence, and 1 if data was lost.
local generation = redis.call('GET', KEYS[1])
local sequence, told, lost = tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[1]), 0
-- A sequence that went back: so did the counters, and nothing stored before is trusted.
if not generation or sequence < told then
  if told > 0 then lost = 1 end
  redis.call('SET', KEYS[1], ARGV[2])
  if sequence < told then
    sequence = told
    redis.call('SET', KEYS[2], string.format('%.0f', sequence))
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[3])
if ARGV[4] ~= '' then
  local losses, number = string.format('%.0f', tonumber(ARGV[5]) + lost), string.format('%.0f', sequence)
  redis.call('PUBLISH', ARGV[4], ARGV[6] .. losses .. ARGV[7] .. number .. ARGV[8])
end
return {sequence, lost}
