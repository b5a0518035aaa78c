"""Load for a running system, and what it left there: for the demo, the tests and the benchmarks."""
