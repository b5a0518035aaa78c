"""Order intake and the life of an order."""
