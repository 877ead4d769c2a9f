-- Tells receivers how far a publisher is, and which life of the data this is.
-- KEYS: the generation, the publisher's sequence. ARGV: channel, message around the numbers (three parts), a fresh
-- generation, sequence_s, the highest sequence that this publisher was told. Gives the sequence.
local generation = redis.call('GET', KEYS[1])
local sequence, told = tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[7])
-- A sequence that went back: so did the counters, and nothing stored before is trusted.
if not generation or sequence < told then
  generation = ARGV[5]
  redis.call('SET', KEYS[1], generation)
  if sequence < told then
    sequence = told
    redis.call('SET', KEYS[2], string.format('%.0f', sequence))
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('PUBLISH', ARGV[1], ARGV[2] .. generation .. ARGV[3] .. string.format('%.0f', sequence) .. ARGV[4])
return sequence
