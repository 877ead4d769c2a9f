-- Tells receivers how far a publisher is, and which life of the data this is.
-- KEYS: the generation, the publisher's sequence. ARGV: channel, message around the numbers (three parts), a fresh
-- generation, sequence_s. Gives the generation.
redis.call('SET', KEYS[1], ARGV[5], 'NX')
local generation = redis.call('GET', KEYS[1])
local sequence = redis.call('GET', KEYS[2]) or '0'
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('PUBLISH', ARGV[1], ARGV[2] .. generation .. ARGV[3] .. sequence .. ARGV[4])
return generation
