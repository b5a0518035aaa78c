"""What every process of ours has: health, metrics, a watchdog."""
