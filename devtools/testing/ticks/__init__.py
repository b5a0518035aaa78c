"""An app with a status log, to try the status hub with: numbers, followed by key.

DJANGO_SETTINGS_MODULE=devtools.testing.ticks.settings. Its table is made by `ticks_table`.
"""
