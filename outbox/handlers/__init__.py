"""From Celery to effects: `task` > `apply`, one transaction a chunk; `isolate` parks what fails."""
