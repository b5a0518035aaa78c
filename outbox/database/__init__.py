"""Transactions with a known outcome, round trips, leases, errors: PostgreSQL beside Django."""
