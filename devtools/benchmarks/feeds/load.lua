-- wrk -s load.lua URL -- post AUTHORS | feed READERS
-- One line of JSON at the end. Authors and readers are drawn evenly: the worst for every cache.

local kind, most

function init(args)
  kind, most = args[1], tonumber(args[2])
  math.randomseed(os.time() + math.random(1e6))
end

local json = { ["Content-Type"] = "application/json" }

function request()
  if kind == "post" then
    return wrk.format("POST", "/posts", json, string.format(
      '{"author_id": "poster-%d", "content": "Something that happened to me today, number %d."}',
      math.random(0, most - 1), math.random(1, 1e9)))
  end
  return wrk.format("GET", "/feeds/reader-" .. math.random(0, most - 1))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
