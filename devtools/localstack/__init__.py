"""The embedded local stack: servers and processes for demo, development and tests.

Nothing here imports Django. `LocalStack` is the way in from Python, `python -m devtools.localstack`
from the command line.
"""

from devtools.localstack.errors import LocalStackError
from devtools.localstack.processes import PLAN, Plan, PreparationStep, ProcessSpec
from devtools.localstack.stack import LocalStack
from devtools.localstack.unit import Unit

__all__ = [
    "PLAN",
    "LocalStack",
    "LocalStackError",
    "Plan",
    "PreparationStep",
    "ProcessSpec",
    "Unit",
]
