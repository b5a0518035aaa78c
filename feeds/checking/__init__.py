"""Entries and caches against the truth, and built anew from it."""
