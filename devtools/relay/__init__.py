"""Messages for the relay, and what became of them: for tests, demo, chaos and benchmark."""
