"""Process tables that need nothing of the project."""

from pathlib import Path

from devtools.localstack.processes import Plan, PreparationStep, ProcessSpec

DUMMY = str(Path(__file__).with_name("dummy.py"))
WEB = ProcessSpec("web", ("{python}", DUMMY, "{port}"), health="/health/ready", web=True)

WORKING = Plan(
    processes=(WEB, ProcessSpec("worker", ("{python}", DUMMY))),
    preparation=(
        PreparationStep(("echo", "sync_routes"), on_new_log=("--recreated",)),
        PreparationStep(("sh", "-c", "echo Admin login: admin / admin # $0", "prepare")),
    ),
)
FAILING_STEP = Plan(
    processes=(WEB,),
    preparation=(PreparationStep(("{python}", "-c", "raise SystemExit('no such table')")),),
)
FAILING_PROCESS = Plan(
    processes=(WEB, ProcessSpec("worker", ("{python}", "-c", "raise SystemExit('no such queue')")))
)
SPEAKING = (
    "import os, time; "
    "os.write(1, (os.environ['SERVICE_NAME'] + ' ' + os.environ['PORT'] + chr(10)).encode())"
)
FOREGROUND = Plan(
    processes=(
        ProcessSpec("web", ("{python}", "-c", f"{SPEAKING}; time.sleep(60)"), web=True),
        ProcessSpec("worker", ("{python}", "-c", f"{SPEAKING}; time.sleep(60)")),
        ProcessSpec("bridge", ("{python}", "-c", f"{SPEAKING}; raise SystemExit(3)")),
    )
)
