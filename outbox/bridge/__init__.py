"""From Kafka to Celery: `bridge` receives, `dispatch` sends chunks, `confirm` reads the positions."""
