"""What the container image has in it, without a container engine.

files.py    which files docker/Dockerfile copies, and a folder of them
size.py     how large they are, with the packages of the lock
"""
