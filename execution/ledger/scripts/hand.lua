#!lua
-- A command is left for the owner of its shard. Repeating it with its operation id does nothing.
-- KEYS 1 inbox  2 what remembers the operation   ARGV 1 the command  2 seconds to remember
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then return {'OK', 'AGAIN'} end
redis.call('XADD', KEYS[1], '*', 'command', ARGV[1])
redis.call('PUBLISH', 'execution:wake', KEYS[1])
return {'OK'}
