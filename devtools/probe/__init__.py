"""The probe of order: keyed sequences through the whole pipeline into a log.

Sums commute, so the sales figures cannot tell whether order was kept; this log can. For the
demo, chaos and benchmarks only: devtools/probe/settings.py installs it and adds its route to the event map.
"""
