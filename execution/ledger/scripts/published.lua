#!lua
-- Events up to an id are confirmed by Pub/Sub: move the cursor and trim, unless the shard has changed hands.
-- KEYS 1 outbox  2 cursor  3 lease   ARGV 1 owner  2 epoch  3 last id confirmed  4 first id to keep
local lease = redis.call('HMGET', KEYS[3], 'owner', 'epoch')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return {'FENCED'} end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[4])
return {'OK', redis.call('XLEN', KEYS[1])}
