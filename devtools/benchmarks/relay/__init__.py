"""`make bench-relay`: the relay beside what its parts could do alone."""
