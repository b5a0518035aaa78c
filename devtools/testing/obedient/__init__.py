"""A program whose probe does what a test orders it to: raise, exit or hang at the events of a key.

DJANGO_SETTINGS_MODULE=devtools.testing.obedient.settings, PROBE_ORDERS=<a folder with a file a key>
"""
