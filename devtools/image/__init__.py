"""What the container image has in it, without a container engine.

files.py          which files docker/Dockerfile copies, and a folder of them
only_the_lock.py  what cannot be imported there
size.py           how large they are, with the packages of the lock
"""
