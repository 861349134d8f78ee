#!lua
-- A signal becomes an order, once. Everything is checked before the first write: scripts do not roll back.
-- KEYS 1 order  2 signal  3 live  4 outbox  5 lease  6 inbox
-- ARGV 1 operation  2 content hash and order id  3 mode: own | hand | end  4 owner  5 epoch  6 quantity  7 claimed
--      8 seconds to keep the order when it ends here  9 seconds to remember the signal then  10 order key
--      11 number of events  12 when the signal was published, in ms, or 0; the events, then field and value pairs of the order
-- 'first' is the operation of the acceptance: before it is asked for a second time, whoever works the order may have written 'op' again.
-- 'doubt' marks an order whose signal was published before the store was last replaced: it may have been accepted and acted on then.
local known = redis.call('GET', KEYS[2])
if known then
  if known ~= ARGV[2] then return {'CONFLICT', known} end
  local by = redis.call('HMGET', KEYS[1], 'op', 'first')
  if by[1] == ARGV[1] then return {'OK', 'AGAIN'} end
  if by[2] == ARGV[1] then return {'OK', 'SINCE', known} end
  return {'DUPLICATE', known}
end
local mode = ARGV[3]
if mode == 'own' then
  local lease = redis.call('HMGET', KEYS[5], 'owner', 'epoch', 'until')
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if lease[1] ~= ARGV[4] or lease[2] ~= ARGV[5] or now >= tonumber(lease[3]) then return {'FENCED'} end
  if ARGV[7] > ARGV[6] then return {'OVERFILL'} end
end
local count = tonumber(ARGV[11])
for i = 13, 12 + count do redis.call('XADD', KEYS[4], '*', 'e', ARGV[i]) end
local fields = {'op', ARGV[1], 'first', ARGV[1], 'qty', ARGV[6], 'claimed', ARGV[7]}
for i = 13 + count, #ARGV do fields[#fields + 1] = ARGV[i] end
local published = tonumber(ARGV[12])
if mode ~= 'end' and published > 0 and published < tonumber(redis.call('HGET', KEYS[5], 'doubted') or '0') then
  fields[#fields + 1] = 'doubt'
  fields[#fields + 1] = '1'
end
redis.call('HSET', KEYS[1], unpack(fields))
if mode == 'end' then
  redis.call('EXPIRE', KEYS[1], ARGV[8])
  redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[9])
  redis.call('PUBLISH', 'execution:wake', KEYS[4])
else
  redis.call('SET', KEYS[2], ARGV[2])
  redis.call('SADD', KEYS[3], ARGV[10])
  if mode == 'hand' then
    redis.call('XADD', KEYS[6], '*', 'order', ARGV[10])
    redis.call('PUBLISH', 'execution:wake', KEYS[6])
  end
end
return {'OK'}
