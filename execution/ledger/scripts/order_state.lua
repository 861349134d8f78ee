#!lua
-- The public state of an order, which never goes back: an older event leaves a newer state alone.
-- KEYS 1 ORDER:<id>   ARGV 1 sequence  2 seconds to keep it, or ''  3.. field and value pairs
local known = tonumber(redis.call('HGET', KEYS[1], 'sequence') or '-1')
if tonumber(ARGV[1]) < known then return {'OLD'} end
local fields = {'sequence', ARGV[1]}
for i = 3, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', KEYS[1], unpack(fields))
if ARGV[2] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return {'OK'}
