"""What purges, measures and checks the servers: `purge`, `gauges`, `server_checks`."""
