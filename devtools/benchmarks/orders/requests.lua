-- wrk -s requests.lua URL -- METHOD PATH BODY KEYS IDS: what client.py sends, sent by wrk.
-- BODY: file with it, empty for none; KEYS: prefix of unique Idempotency-Keys or "-"; IDS: file of ids put behind PATH or "-".
local method, path, body, keys
local ids, count = {}, 0

function init(args)
  method, path, keys = args[1], args[2], args[4]
  local file = assert(io.open(args[3]))
  local whole = file:read("*a")
  file:close()
  if whole ~= "" then body = whole end
  if args[5] ~= "-" then
    for line in io.lines(args[5]) do ids[#ids + 1] = line end
  end
end

function request()
  count = count + 1
  local headers = {}
  if body then headers["Content-Type"] = "application/json" end
  if keys ~= "-" then headers["Idempotency-Key"] = keys .. "-" .. count end
  local target = path
  if #ids > 0 then target = path .. ids[count % #ids + 1] end
  return wrk.format(method, target, headers, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("\nRESULT %d %d %d %d %d\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
