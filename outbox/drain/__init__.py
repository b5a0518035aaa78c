"""From the outbox to Kafka: `run` > `batch` claims; `settle` sends through `produce` and marks what went out."""
