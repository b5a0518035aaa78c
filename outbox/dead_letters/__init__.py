"""Failed events: `letters` writes them, `due` leases them, `redrive` applies them again, `resolve` is for operators.

To park an event is to write a letter for it. Its receipt then says parked; a letter in the state
parked waits behind an older one of its key, or for a release that knows its type.
"""
