"""Grafana's dashboards, generated: `make dashboards` writes docker/grafana/dashboards.

One module a dashboard. What a panel asks for is written once, here; tests hold the files to this code,
each metric to the code that counts it, and each query to a running stack.
"""
