#!lua
-- One transition of one order and the events it causes, or nothing. Repeating it with its operation id does nothing.
-- KEYS 1 order  2 live  3 outbox  4 lease  5 signal
-- ARGV 1 operation  2 owner  3 epoch  4 version expected  5 claims to check: 1 entries, 2 exits, 3 both  6 quantity or ''  7 ended: 1 | 0, or 2: live again
--      8 seconds to keep an ended order  9 seconds to remember its signal  10 number of claims  11 number of events
--      12 quantity the entry holds, which exits may close
--      then (field, claim) pairs, events, field and value pairs; a claim's field is k:<number>, of an exit x:<number>
local state = redis.call('HMGET', KEYS[1], 'v', 'op', 'qty', 'claimed', 'exited')
if state[2] == ARGV[1] then return {'OK', 'AGAIN'} end
local lease = redis.call('HMGET', KEYS[4], 'owner', 'epoch', 'until')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if lease[1] ~= ARGV[2] or lease[2] ~= ARGV[3] or now >= tonumber(lease[3]) then return {'FENCED', lease[1], lease[2]} end
if not state[1] then return {'GONE'} end
if state[1] ~= ARGV[4] then return {'VERSION', state[1]} end

-- Sums of 56-digit numbers: 28 before and 28 after the point, eight limbs of seven digits. A double would round them.
local function sum(total, add, subtract)
  local out, carry = {}, 0
  for limb = 8, 1, -1 do
    local from, to = limb * 7 - 6, limb * 7
    local value = tonumber(total:sub(from, to)) + tonumber(add:sub(from, to)) + carry
    if subtract then value = value - tonumber(subtract:sub(from, to)) end
    carry = math.floor(value / 10000000)
    out[limb] = string.format('%07d', value - carry * 10000000)
  end
  return table.concat(out)
end

local quantity = ARGV[6] ~= '' and ARGV[6] or state[3]
local claims, events = tonumber(ARGV[10]), tonumber(ARGV[11])
local claimed, exited, fields, at = state[4], state[5] or string.rep('0', 56), {}, 13
local exits = false
for _ = 1, claims do
  local field = ARGV[at]
  local before = redis.call('HGET', KEYS[1], field)
  if field:sub(1, 1) == 'x' then
    exited = sum(exited, ARGV[at + 1], before or nil)
    exits = true
  else
    claimed = sum(claimed, ARGV[at + 1], before or nil)
  end
  fields[#fields + 1] = field
  fields[#fields + 1] = ARGV[at + 1]
  at = at + 2
end
local checked = tonumber(ARGV[5])
if checked % 2 == 1 and claimed > quantity then return {'OVERFILL', claimed, quantity} end
if checked >= 2 and exited > ARGV[12] then return {'OVERFILL', exited, ARGV[12]} end

for i = at, at + events - 1 do redis.call('XADD', KEYS[3], '*', 'e', ARGV[i]) end
for i = at + events, #ARGV do fields[#fields + 1] = ARGV[i] end
if exits then
  fields[#fields + 1] = 'exited'
  fields[#fields + 1] = exited
end
for _, pair in ipairs({{'op', ARGV[1]}, {'qty', quantity}, {'claimed', claimed}}) do
  fields[#fields + 1] = pair[1]
  fields[#fields + 1] = pair[2]
end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('HINCRBY', KEYS[1], 'v', 1)
if ARGV[7] == '1' then
  redis.call('SREM', KEYS[2], KEYS[1]:match('[^:]+$'))
  redis.call('EXPIRE', KEYS[1], ARGV[8])
  redis.call('EXPIRE', KEYS[5], ARGV[9])
elseif ARGV[7] == '2' then
  redis.call('SADD', KEYS[2], KEYS[1]:match('[^:]+$'))
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[5])
end
return {'OK'}
