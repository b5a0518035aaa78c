"""Fan-out: events become slices, slices become entries, and caches hear of it."""
