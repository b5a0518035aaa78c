-- wrk -s load.lua URL -- simple | items | keyed | order FILE | list | health
-- One line of JSON at the end. `keyed`: the simple body, each with an Idempotency-Key of its own;
-- `order FILE`: GET /orders/{id} of random ids of the file, one a line.

local kind
local ids = {}
local number = 0
local run = tostring(os.time()) .. "-" .. tostring(math.random(1, 1e9))

function init(args)
  kind = args[1]
  math.randomseed(os.time())
  if kind == "order" then
    for line in io.lines(args[2]) do
      ids[#ids + 1] = line
    end
  end
end

local json = { ["Content-Type"] = "application/json" }

local function simple(headers)
  local body = string.format('{"user_id": "user-%d", "amount": %d.%02d}',
    math.random(5000), math.random(1, 500), math.random(0, 99))
  return wrk.format("POST", "/orders", headers, body)
end

function request()
  number = number + 1
  if kind == "simple" then
    return simple(json)
  elseif kind == "keyed" then
    return simple({ ["Content-Type"] = "application/json", ["Idempotency-Key"] = run .. "-" .. number })
  elseif kind == "items" then
    local items = {}
    for place = 1, 3 do
      items[place] = string.format('{"productId": "product-%d", "quantity": %d, "price": %d.%02d}',
        math.random(200), math.random(1, 4), math.random(1, 200), math.random(0, 99))
    end
    return wrk.format("POST", "/orders", json, string.format(
      '{"customerId": "customer-%d", "items": [%s]}', math.random(5000), table.concat(items, ", ")))
  elseif kind == "order" then
    return wrk.format("GET", "/orders/" .. ids[math.random(#ids)])
  elseif kind == "list" then
    return wrk.format("GET", "/orders")
  end
  return wrk.format("GET", "/health")
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
