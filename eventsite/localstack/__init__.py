"""The embedded local stack: servers and processes for demo, development and tests.

Nothing here imports Django. `LocalStack` is the way in from Python, `python -m eventsite.localstack`
from the command line.
"""

from eventsite.localstack.errors import LocalStackError
from eventsite.localstack.processes import PLAN, Plan, ProcessSpec, Step
from eventsite.localstack.stack import LocalStack
from eventsite.localstack.unit import Unit

__all__ = ["PLAN", "LocalStack", "LocalStackError", "Plan", "ProcessSpec", "Step", "Unit"]
