"""What Celery's worker does otherwise here: its Redis transport, its consumer, how its progress is seen."""
