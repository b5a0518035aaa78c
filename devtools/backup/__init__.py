"""Base backup, archive of WAL, and restore to a point in time, of a stack's PostgreSQL."""
