"""One ASGI layer around all HTTP: ids, access log, metrics, body limit."""
