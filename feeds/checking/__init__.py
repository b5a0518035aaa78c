"""Entries and caches against the truth, and rebuilt from it."""
