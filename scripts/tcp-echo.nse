-- SPDX-License-Identifier: BSD-2-Clause
local math = require "math"
local nmap = require "nmap"
local stdnse = require "stdnse"
local string = require "string"
local table = require "table"

description = [[
Proves that a TCP port echoes (RFC 862): connects, sends bytes, and checks that the same bytes come back.

An open port does not prove this: a proxy or a firewall may have answered the SYN, or may drop data that it does not
know. Run it against echo-server, which answers on any set of ports: then each port that is verified here lets data
through in both directions. <code>echo-server probe</code> does the same without Nmap, and faster.

The script connects to every open TCP port of the scan, so choose the ports with <code>-p</code>. It sends each
byte value equally often. After silence, or without a connection, it tries once more, a second later. Its times are
rough: a busy Nmap delivers data only every 50 ms.

With many ports Nmap gets slow: 65,535 took more than 25 minutes in one run, and one to two minutes in 16 at once. So
scan parts of 4,096 ports, each in a run of its own; <code>-oX FILE</code> keeps all figures. Where a firewall limits
connections, give <code>--max-rate</code> for the scan, and <code>--max-parallelism</code> for the script: how many
connections it has at once, 20 otherwise.

For a link-local address (fe80::) give <code>-e INTERFACE</code>, even if the address ends in <code>%INTERFACE</code>.
Without it Nmap finds ports open, and the script can't connect; a connect scan of an address without
<code>%INTERFACE</code> finds them filtered.
]]

---
-- @usage nmap -p 1-1000 --script /usr/share/echo-server/tcp-echo.nse <target>
-- @usage nmap -p 7 --script tcp-echo.nse --script-args tcp-echo.size=1024,tcp-echo.timeout=10s <target>
-- @usage nmap --max-rate 2000 -p 4097-8192 -oX part2.xml --script tcp-echo.nse <target>
-- @usage nmap -6 -e eth0 -p 7 --script tcp-echo.nse fe80::1
--
-- @args tcp-echo.size    How many bytes are sent, 1 to 65536. Default: 4096
-- @args tcp-echo.timeout Limit for the connection, and again for the bytes, there and back. Default: 2s to 10s,
--                        which follows the times of the host's answers
--
-- @output
-- PORT    STATE SERVICE
-- 7/tcp   open  echo
-- |_tcp-echo: echo verified (4096 bytes, 1 ms)
-- 9/tcp   open  discard
-- |_tcp-echo: echo verified at the second try (4096 bytes, 1 ms)
-- 22/tcp  open  ssh
-- |_tcp-echo: no echo: something else came: "SSH-2.0-OpenSSH_9.2"
-- 80/tcp  open  http
-- |_tcp-echo: no echo: silence for 2000 ms (2 tries)
-- 110/tcp open  pop3
-- |_tcp-echo: no echo: no connection, though the port was open before: no answer in 2000 ms (2 tries)
-- 443/tcp open  https
-- |_tcp-echo: no whole echo: reset after 40 of 4096 bytes
--
-- @xmloutput
-- <elem key="verified">false</elem>
-- <elem key="sent">0</elem>
-- <elem key="received">0</elem>
-- <elem key="ms">0</elem>
-- <elem key="tries">2</elem>
-- <elem key="ended">no connection</elem>
-- <elem key="reason">no answer in 2000 ms</elem>

author = "the echo-server authors"
license = "BSD-2-Clause"
categories = {"discovery", "intrusive"}

portrule = function(host, port)
  return port.protocol == "tcp" and port.state == "open"
end

local MAX_SIZE = 65536
local SIZE, TIMEOUT = SCRIPT_NAME .. ".size", SCRIPT_NAME .. ".timeout"
local ENDS = {TIMEOUT = "timeout", EOF = "closed"} -- by Nmap's names; all others are socket errors

-- Returns what is wrong with the names of our arguments, or nil. Nmap itself ignores unknown arguments, such as
-- tcp-echo={size=100}, and reads tcp-echo.size without a value as 1.
local function wrong_name()
  for key, value in pairs(nmap.registry.args) do
    local bare = math.type(key) == "integer"
    local name = tostring(bare and value or key)
    if (name .. "."):find(SCRIPT_NAME .. ".", 1, true) == 1 and (bare or (name ~= SIZE and name ~= TIMEOUT)) then
      return ("'%s' is not allowed here: write %s=BYTES or %s=TIME"):format(name, SIZE, TIMEOUT)
    end
  end
end

-- Returns size and timeout (in ms), or nil and what is wrong.
local function read_args(host)
  local wrong = wrong_name()
  if wrong then return nil, wrong end
  local size = tostring(stdnse.get_script_args(SIZE) or 4096)
  local number = math.tointeger(tonumber(size))
  if not number or number < 1 or number > MAX_SIZE then
    return nil, ("%s: '%s' is not allowed here: write a whole number from 1 to %d"):format(SIZE, size, MAX_SIZE)
  end
  local timespec = stdnse.get_script_args(TIMEOUT)
  if not timespec then return number, math.ceil(stdnse.get_timeout(host, 10000, 2000)) end
  local seconds = stdnse.parse_timespec(tostring(timespec))
  if not seconds or seconds <= 0 then
    return nil, ("%s: '%s' is not allowed here: write a time such as 500ms, 10s or 1m"):format(TIMEOUT, timespec)
  end
  return number, math.ceil(seconds * 1000)
end

-- Returns `size` bytes. Each block of 256 has every value once, and begins with a different value, so that swapped
-- blocks are found.
local function pattern(size)
  local values, blocks = {}, {}
  for i = 1, 256 do values[i] = i - 1 end
  local twice = string.char(table.unpack(values)):rep(2)
  for i = 1, (size + 255) // 256 do blocks[i] = twice:sub(i, i + 255) end
  return table.concat(blocks):sub(1, size)
end

-- Returns how many bytes of `data`, from its start, equal those in `sent` after `offset`.
local function matching(data, sent, offset)
  if data == sent:sub(offset + 1, offset + #data) then return #data end
  local count = 0
  while count < #data and data:byte(count + 1) == sent:byte(offset + count + 1) do count = count + 1 end
  return count
end

-- Receives until `sent` is back, something else has come, the connection has ended, or the time is up. Returns how many
-- bytes came as they were sent, what came after them, and how it ended: nil, "closed", "reset" or "timeout".
local function receive(socket, sent, deadline)
  local good = 0
  while good < #sent do
    -- At least 1 ms, even if the time is up: a busy Nmap may be late, and the echo may be in the socket. 0 means no
    -- limit.
    socket:set_timeout(math.max(1, math.floor(deadline - nmap.clock_ms())))
    local status, data = socket:receive()
    if not status then return good, "", ENDS[data] or "reset" end
    local same = matching(data, sent, good)
    good = good + same
    if same < #data then return good, data:sub(same + 1) end
  end
  return good, ""
end

-- Returns why there is no connection. Nmap's socket says only "TIMEOUT", "ERROR", or that connect(2) failed at once.
local function reason(failure, host, timeout)
  if failure == "TIMEOUT" then return ("no answer in %d ms"):format(timeout) end
  if failure == "ERROR" then return "refused, or ICMP says unreachable (Nmap does not tell which)" end
  if host.ip:find("^fe[89ab]") then return "for a link-local address Nmap needs -e INTERFACE" end
  return failure .. " (no route from here, or no local port is free)"
end

-- Tries once. Returns what happened: `good` bytes came as they were sent, then `other`.
local function exchange(host, port, sent, timeout)
  local socket = nmap.new_socket("tcp")
  socket:set_timeout(timeout)
  local connected, failure = socket:connect(host, port)
  if not connected then
    socket:close()
    return {good = 0, other = "", ms = 0, ended = "no connection", reason = reason(failure, host, timeout)}
  end
  local start = nmap.clock_ms()
  local whole = socket:send(sent)
  local good, other, ended = receive(socket, sent, start + timeout)
  if not whole and ended == "closed" then ended = "reset" end -- send() got the error, which is reported only once
  socket:close()
  return {good = good, other = other, ms = math.floor(nmap.clock_ms() - start + 0.5), ended = ended}
end

-- Returns the beginning of the first line of `text`, with other bytes escaped: a line feed could forge a line of the
-- report, and a quote could end the quotation.
local function quote(text)
  local piece = (text:match("^[^\r\n]+") or text):sub(1, 60):gsub('["\\]', "\\%0")
  return '"' .. piece:gsub("[^\32-\126]", function(c) return ("\\x%02X"):format(c:byte()) end) .. '"'
end

-- Returns why there was no echo of `size` bytes.
local function failure_of(result, size)
  local good, ended = result.good, result.ended
  if result.reason then return "no connection, though the port was open before: " .. result.reason end
  if result.other ~= "" then
    local where = good > 0 and (" after %d bytes"):format(good) or ""
    return ("something else came%s: %s"):format(where, quote(result.other))
  end
  if ended ~= "timeout" then return ("%s after %d of %d bytes"):format(ended, good, size) end
  if good == 0 then return ("silence for %d ms"):format(result.ms) end
  return ("%d of %d bytes in %d ms"):format(good, size, result.ms)
end

-- Tries again after silence, or without a connection. Returns the last result, and the number of tries.
local function try_twice(host, port, sent, timeout)
  local result = exchange(host, port, sent, timeout)
  if result.ended ~= "timeout" and not result.reason then return result, 1 end
  stdnse.sleep(1) -- by then a rate limit may let it through
  return exchange(host, port, sent, timeout), 2
end

action = function(host, port)
  local size, timeout = read_args(host)
  if not size then return timeout end
  local result, tries = try_twice(host, port, pattern(size), timeout)
  local output = stdnse.output_table()
  output.verified = result.good == size and result.other == ""
  output.sent = result.reason and 0 or size
  output.received = result.good + #result.other
  output.ms = result.ms
  output.tries = tries
  output.ended = result.ended
  output.reason = result.reason
  if output.verified then
    local which = tries > 1 and " at the second try" or ""
    return output, ("echo verified%s (%d bytes, %d ms)"):format(which, size, result.ms)
  end
  local verdict = result.good == 0 and "no echo" or "no whole echo"
  return output, ("%s: %s%s"):format(verdict, failure_of(result, size), tries > 1 and " (2 tries)" or "")
end
