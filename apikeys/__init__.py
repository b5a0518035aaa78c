"""API keys: who may call what. The gateway asks, this app only keeps them."""
