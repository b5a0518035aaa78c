"""Process tables that need nothing of the project."""

from pathlib import Path

from eventsite.localstack.processes import Plan, ProcessSpec, Step

DUMMY = str(Path(__file__).with_name("dummy.py"))
WEB = ProcessSpec("web", ("{python}", DUMMY, "{port}"), health="/health/ready", web=True)

WORKING = Plan(
    processes=(WEB, ProcessSpec("worker", ("{python}", DUMMY))),
    preparation=(
        Step(("echo", "sync_routes"), on_new_log=("--recreated",)),
        Step(("echo", "ensure_admin")),
    ),
)
FAILING_STEP = Plan(
    processes=(WEB,), preparation=(Step(("{python}", "-c", "raise SystemExit('no such table')")),)
)
FAILING_PROCESS = Plan(
    processes=(WEB, ProcessSpec("worker", ("{python}", "-c", "raise SystemExit('no such queue')")))
)
