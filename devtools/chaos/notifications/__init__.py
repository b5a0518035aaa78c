"""Chaos of notifications: who accepts and cancels them, what the provider saw, and how it is judged."""
