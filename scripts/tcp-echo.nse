-- SPDX-License-Identifier: BSD-2-Clause
local math = require "math"
local nmap = require "nmap"
local rand = require "rand"
local stdnse = require "stdnse"

description = [[
Proves that a TCP port echoes (RFC 862): connects, sends random bytes, and checks that the same bytes come back.

An open port is no such proof: what answered the SYN may be a proxy or a firewall, and what is on the way may drop or
cut connections whose data it does not know. Run it against echo-server, which answers on any set of ports: then each
port that is verified here lets data through in both directions.

The script sends random bytes to every open TCP port of the scan, so choose ports of your own with <code>-p</code>.
Its times are coarse, because Nmap hands over what has come only every 50 ms if it has much to do.
]]

---
-- @usage nmap -p 1-1000 --script /usr/share/echo-server/tcp-echo.nse <target>
-- @usage nmap -p 7 --script tcp-echo.nse --script-args tcp-echo.size=1024,tcp-echo.timeout=10s <target>
--
-- @args tcp-echo.size    How many bytes are sent, 1 to 65536. Default: 64
-- @args tcp-echo.timeout Max time for the connection, and again for the bytes, there and back. Default: by the times
--                        of the host's answers, 2s to 10s
--
-- @output
-- PORT    STATE SERVICE
-- 7/tcp   open  echo
-- |_tcp-echo: echo verified (64 bytes, 1 ms)
-- 22/tcp  open  ssh
-- |_tcp-echo: no echo: something else came: "SSH-2.0-OpenSSH_9.2"
-- 80/tcp  open  http
-- |_tcp-echo: no echo: silence for 2000 ms
-- 443/tcp open  https
-- |_tcp-echo: no whole echo: reset after 40 of 64 bytes
--
-- @xmloutput
-- <elem key="verified">false</elem>
-- <elem key="sent">64</elem>
-- <elem key="received">40</elem>
-- <elem key="ms">12</elem>
-- <elem key="ended">reset</elem>

author = "the echo-server authors"
license = "BSD-2-Clause"
categories = {"discovery", "intrusive"}

portrule = function(host, port)
  return port.protocol == "tcp" and port.state == "open"
end

local MAX_SIZE = 65536
local ENDS = {TIMEOUT = "timeout", EOF = "closed"} -- by what Nmap calls it; everything else is an error of the socket

-- Returns size and timeout (in ms), or nil and what is wrong.
local function read_args(host)
  local size = stdnse.get_script_args(SCRIPT_NAME .. ".size") or 64
  local number = math.tointeger(tonumber(size))
  if not number or number < 1 or number > MAX_SIZE then
    return nil, ("%s.size: '%s' is not allowed here: write a whole number from 1 to %d"):format(
      SCRIPT_NAME, size, MAX_SIZE)
  end
  local timespec = stdnse.get_script_args(SCRIPT_NAME .. ".timeout")
  if not timespec then return number, stdnse.get_timeout(host, 10000, 2000) end
  local seconds = stdnse.parse_timespec(timespec)
  if not seconds or seconds <= 0 then
    return nil, ("%s.timeout: '%s' is not allowed here: write a time such as 500ms, 10s or 1m"):format(
      SCRIPT_NAME, timespec)
  end
  return number, seconds * 1000
end

-- Receives until `sent` is back, something else has come, the connection has ended, or the time is up. Returns all that
-- came, and how it ended: nil, "closed", "reset" or "timeout".
local function receive(socket, sent, deadline)
  local received = ""
  while #received < #sent and received == sent:sub(1, #received) do
    -- Even if the time is up: a busy Nmap may be late, and the echo may wait in the socket. 0 would be for ever.
    socket:set_timeout(math.max(1, math.floor(deadline - nmap.clock_ms())))
    local status, data = socket:receive()
    if not status then return received, ENDS[data] or "reset" end
    received = received .. data
  end
  return received, nil
end

-- How many bytes of `received` are as they were sent.
local function matching(received, sent)
  local count = 0
  while count < #received and received:byte(count + 1) == sent:byte(count + 1) do count = count + 1 end
  return count
end

-- The beginning of the first line of `text`, printable: a line feed of its own could forge a line of the report.
local function quote(text)
  local piece = (text:match("^[^\r\n]+") or text):sub(1, 60)
  return '"' .. piece:gsub("[^\32-\126]", function(c) return ("\\x%02X"):format(c:byte()) end) .. '"'
end

local function describe(sent, received, ended, ms)
  if ended == "no connection" then return "no echo: no connection, though the port was open before" end
  if received == sent then return ("echo verified (%d bytes, %d ms)"):format(#sent, ms) end
  local good = matching(received, sent)
  local verdict = good == 0 and "no echo" or "no whole echo"
  if good < #received then
    local where = good > 0 and (" after %d bytes"):format(good) or ""
    return ("%s: something else came%s: %s"):format(verdict, where, quote(received:sub(good + 1)))
  end
  if ended ~= "timeout" then return ("%s: %s after %d of %d bytes"):format(verdict, ended, good, #sent) end
  if good == 0 then return ("%s: silence for %d ms"):format(verdict, ms) end
  return ("%s: %d of %d bytes in %d ms"):format(verdict, good, #sent, ms)
end

-- Returns what came back, how it ended, and the time in ms.
local function exchange(host, port, sent, timeout)
  local socket = nmap.new_socket("tcp")
  socket:set_timeout(timeout)
  if not socket:connect(host, port) then return "", "no connection", 0 end
  local start = nmap.clock_ms()
  local whole = socket:send(sent)
  local received, ended = receive(socket, sent, start + timeout)
  if not whole and ended == "closed" then ended = "reset" end -- send() has seen the error, which comes only once
  socket:close()
  return received, ended, math.floor(nmap.clock_ms() - start + 0.5)
end

action = function(host, port)
  local size, timeout = read_args(host)
  if not size then return timeout end
  local sent = rand.random_string(size)
  local received, ended, ms = exchange(host, port, sent, timeout)
  local output = stdnse.output_table()
  output.verified = received == sent
  output.sent = #sent
  output.received = #received
  output.ms = ms
  output.ended = ended
  return output, describe(sent, received, ended, ms)
end
