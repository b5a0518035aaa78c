"""Compares every committed event with every receipt: `compare` finds missing events, `repair` redrives them."""
