"""Pages of feeds: from the cache where it can be believed, from entries and posts where not."""
