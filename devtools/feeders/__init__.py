"""Users who post, follow, delete, unfollow and read over HTTP, and what their feeds must have shown."""
