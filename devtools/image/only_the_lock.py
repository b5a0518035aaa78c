"""Python as in the image: what is installed here beside the lock cannot be imported."""

__all__ = ["ONLY_THE_LOCK"]

ONLY_THE_LOCK = """
import os, re, sys
from importlib import metadata

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

with open("requirements.txt") as lock:
    locked = {plain(name) for name in re.findall(r"^([\\w.-]+)(?:\\[.*\\])?==", lock.read(), re.M)}
modules = metadata.packages_distributions()

class Refusal:
    def find_spec(self, name, path=None, target=None):
        owners = {plain(owner) for owner in modules.get(name, ())}
        if owners and not owners & locked:
            raise ModuleNotFoundError(f"{name} is not in requirements.txt")

sys.meta_path.insert(0, Refusal())
"""
"""A sitecustomize.py for a folder on PYTHONPATH; the process must start where requirements.txt is."""
