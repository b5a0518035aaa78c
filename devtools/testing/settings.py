"""Tests: the local stack's settings with the probe, and quiet logs."""

import os

os.environ.setdefault("LOG_LEVEL", "WARNING")

from devtools.probe.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Processes that a test starts find the test database by this name.
DATABASES["default"]["TEST"] = {"NAME": "eventsite_test"}  # noqa: F405
# A test is one transaction: a busy machine that runs none of it for eight seconds would end it.
DATABASES["default"]["OPTIONS"]["options"] += " -c idle_in_transaction_session_timeout=10min"  # noqa: F405
