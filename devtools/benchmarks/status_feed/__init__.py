"""From a commit to the sockets of a live feed; `python -m devtools.benchmarks.status_feed`."""
