"""What was applied: the position of a handler in each partition, and a receipt for each event."""
