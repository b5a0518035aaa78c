"""A breaker that many workers share around what they call: see README.md."""
