"""Known weaknesses of the packages in our locks, less those that we have looked at: `make audit-deps`."""
