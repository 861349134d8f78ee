#!lua
-- The pulses of strategies and other sources, one hash for all, so that each step is atomic and any replica may take it.
-- Fields, each followed by the pulse's name: b: beats so far  t: its timeout in ms  l: ms since the epoch of the last beat
--      g: how often it tripped or was resumed  x: the trip, while it stands  o: the g whose event was published
-- KEYS 1 pulses   ARGV 1 beat | trip | restore | resume | told | prune  2 name  3.. as below
local verb, name = ARGV[1], ARGV[2]
if verb == 'beat' then -- 3 timeout in ms
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 't:' .. name, ARGV[3], 'l:' .. name, time[1] * 1000 + math.floor(time[2] / 1000))
  return redis.call('HINCRBY', KEYS[1], 'b:' .. name, 1)
end
if verb == 'trip' then -- 3 the beats that were seen  4 the trip
  if redis.call('HEXISTS', KEYS[1], 'x:' .. name) == 1 then return 'TRIPPED' end
  if redis.call('HGET', KEYS[1], 'b:' .. name) ~= ARGV[3] then return 'BEATEN' end
  redis.call('HSET', KEYS[1], 'x:' .. name, ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'g:' .. name, 1)
  redis.call('PUBLISH', 'execution:wake', 'pulses')
  return 'OK'
end
if verb == 'restore' then -- 3 the trip's g  4 the trip: after a restart of the store that lost it
  if tonumber(redis.call('HGET', KEYS[1], 'g:' .. name) or '0') >= tonumber(ARGV[3]) then return 'KNOWN' end
  redis.call('HSET', KEYS[1], 'x:' .. name, ARGV[4], 'g:' .. name, ARGV[3])
  return 'OK'
end
if verb == 'resume' then
  if redis.call('HDEL', KEYS[1], 'x:' .. name) == 0 then return 'NOT' end
  redis.call('HINCRBY', KEYS[1], 'g:' .. name, 1)
  redis.call('PUBLISH', 'execution:wake', 'pulses')
  return 'OK'
end
if verb == 'told' then -- 3 the trip's g
  redis.call('HSET', KEYS[1], 'o:' .. name, ARGV[3])
  return 'OK'
end
if verb == 'prune' then -- 3 the beats that were seen: it is long silent, and nothing stands against it
  if redis.call('HEXISTS', KEYS[1], 'x:' .. name) == 1 then return 'TRIPPED' end
  if redis.call('HGET', KEYS[1], 'b:' .. name) ~= ARGV[3] then return 'BEATEN' end
  redis.call('HDEL', KEYS[1], 'b:' .. name, 't:' .. name, 'l:' .. name, 'o:' .. name)
  return 'OK'
end
return redis.error_reply('ERR unknown verb')
