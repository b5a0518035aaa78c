"""An app with WebSockets, to try the gateway around them.

DJANGO_SETTINGS_MODULE=devtools.testing.sockets.settings
"""
