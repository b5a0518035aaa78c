"""Posts, follows, and the feeds that are made of them."""
