"""A limiter that paces what many workers send: see README.md."""
