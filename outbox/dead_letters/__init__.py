"""What failed: `letters` writes it, `due` leases and `redrive` applies it again, an operator has `resolve`.

To park an event is to write a letter for it. Its receipt then says parked; a letter in the state
parked waits behind an older one of its key, or for a release that knows its type.
"""
