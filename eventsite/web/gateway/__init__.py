"""One ASGI layer around HTTP and WebSockets: ids, keys, limits, access log, metrics, body limit."""
