"""Where events begin: `events` puts them into the transaction of the change; `nudge` asks for a drain."""
