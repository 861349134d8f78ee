#!lua
-- Append trades to the stream that outside readers follow, once each: a shard's cursor says how far it came.
-- KEYS 1 stream  2 cursors   ARGV 1 shard  2 most entries to keep  3 number of fields per trade, then per trade:
--      its position (sortable text), field and value pairs
local cursor = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local width = tonumber(ARGV[3]) * 2
local at = 4
while at <= #ARGV do
  if ARGV[at] > cursor then
    local fields = {}
    for i = at + 1, at + width do fields[#fields + 1] = ARGV[i] end
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', unpack(fields))
    cursor = ARGV[at]
  end
  at = at + 1 + width
end
redis.call('HSET', KEYS[2], ARGV[1], cursor)
return {'OK'}
