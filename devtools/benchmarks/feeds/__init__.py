"""Figures of the feeds: `make bench-feeds`."""
