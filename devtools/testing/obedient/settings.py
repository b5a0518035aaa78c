"""The tests' settings, with short deadlines: events that end their process are found by them."""

from devtools.testing.settings import *  # noqa: F403

# Before the apps whose tasks take the effect over.
INSTALLED_APPS = ["devtools.testing.obedient.apps.ObedientConfig", *INSTALLED_APPS]  # noqa: F405
OUTBOX_BRIDGE_POLICY = {"effect_timeout": 1.5, "task_time_limit": 2, "deadline": 3.0}
OUTBOX_REDRIVE_POLICY = {"lease": 4.0}
