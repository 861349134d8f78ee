#!lua
-- An event that changes no order, once per command: the answer to a command that cannot be done.
-- KEYS 1 outbox  2 command   ARGV 1 event  2 seconds to remember the command
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then return {'OK', 'AGAIN'} end
redis.call('XADD', KEYS[1], '*', 'e', ARGV[1])
redis.call('PUBLISH', 'execution:wake', KEYS[1])
return {'OK'}
