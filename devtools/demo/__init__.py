"""The demo: real servers, real load, real kills, and a table of what became of every event."""
