#!lua
-- Ownership of a shard: a lease with an epoch that grows at each change of hands. The hash never expires, so the epoch
-- cannot start again.
-- 'run' names the process of the store under which an owner last confirmed that the shard lacks nothing; 'doubted' is when it was last
-- taken under another one: what was published before may have been accepted, and acted on, and forgotten.
-- KEYS 1 lease  2 inbox   ARGV 1 acquire | renew | release  2 owner  3 epoch (renew, release)  4 ms it lasts
--      5 renew, release: the store's process, when nothing is missing, or ''; acquire: 'own' to take only what was ours last, or ''
--      6 acquire: the store's process, or '' when it is not known; who holds a shard for the first time has nothing to confirm  7 when that began, in ms; or '' where the shard was held before
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'until', 'run', 'doubted')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch, ends = tonumber(lease[2] or '0'), tonumber(lease[3] or '0')
if ARGV[1] == 'acquire' then
  if lease[1] and (now < ends or (ARGV[5] == 'own' and lease[1] ~= ARGV[2])) then return {'HELD', lease[1], epoch, math.max(ends - now, 0)} end
  redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'epoch', epoch + 1, 'until', now + ARGV[4], 'before', ends)
  if not lease[1] and ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'run', ARGV[6]) end
  local doubted = tonumber(lease[5] or '0')
  if ARGV[6] ~= '' and ARGV[6] ~= lease[4] then
    -- A store that never knew the shard can only have forgotten what was published before it began.
    doubted = (lease[1] or ARGV[7] == '') and now or tonumber(ARGV[7])
    redis.call('HSET', KEYS[1], 'doubted', doubted)
  end
  return {'OK', lease[1] or '', epoch + 1, ends, now, lease[4] or '', doubted}
end
if lease[1] ~= ARGV[2] or lease[2] ~= ARGV[3] then return {'LOST', lease[1] or '', epoch} end
if ARGV[1] == 'renew' and now >= ends then return {'LOST', lease[1], epoch} end
if ARGV[5] ~= '' and ARGV[5] ~= lease[4] then redis.call('HSET', KEYS[1], 'run', ARGV[5]) end
if ARGV[1] == 'renew' then
  redis.call('HSET', KEYS[1], 'until', now + ARGV[4])
  return {'OK', ARGV[2], epoch, redis.call('XLEN', KEYS[2])}
end
redis.call('HSET', KEYS[1], 'until', math.min(now, ends))
redis.call('PUBLISH', 'execution:wake', 'release')
return {'OK', ARGV[2], epoch}
