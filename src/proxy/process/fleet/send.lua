-- Tells batches to the judge.
--
-- KEYS  the stream
-- ARGV  ms to keep it, most entries, owner, then for each batch its number, ms since it was closed, and what it holds
-- Reply the id of the last
local last
for i = 4, #ARGV, 3 do
  last = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'o', ARGV[3], 'n', ARGV[i], 'w', ARGV[i + 1], 'p', ARGV[i + 2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return last
