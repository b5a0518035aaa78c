"""Every committed event against every receipt: `compare` finds what is missing, `repair` mends it."""
