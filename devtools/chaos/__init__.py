"""Fault injection against the real local stack, and the checker that judges what became of it.

`make chaos` runs every scenario under load and judges its history; `make chaos MUTANTS=1` breaks
one guard at a time and demands that the checker sees it. See docs/reliability.md.
"""
