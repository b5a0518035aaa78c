"""An app whose newer release knows an event type of order-events that the older one does not.

Both sides of an upgrade run these files; COURIER in the environment, `old` or `new`, says which
release of them it is. The handler is the same in both, and the newer one subscribes to more: so what
the platform of either commit does with a type that it does not know is seen on a handler that has
always been there, and on all others of the topic. The newer one also has a migration more.
"""
