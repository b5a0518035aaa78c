"""`make bench-backbone`: how fast the outbox, the drain, the bridge and the effects are."""
