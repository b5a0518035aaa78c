"""What waits to be sent, in order: a drain claims lanes (`claim`) and reads their events (`pending`)."""
