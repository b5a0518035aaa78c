"""Options of the whole test run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
from django.core.management.color import Style
from hypothesis import HealthCheck, settings

# How long an example takes to be made or tried says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
ROOT = Path(__file__).parent
# Files that take minutes, the longest first, as `--durations` of a whole run says.
LONGEST = (
    "eventsite/tests/test_weather.py",
    "docker/tests/test_in_prometheus.py",
    "eventsite/tests/test_schemathesis.py",
    "operations/tests/test_accessible.py",
    "eventsite/tests/test_dead_letters.py",
    "eventsite/tests/test_tracing.py",
    "devtools/localstack/tests/test_background.py",
    "eventsite/tests/test_refusing_redis.py",
    "eventsite/tests/test_in_flight.py",
    "docker/tests/test_read_only.py",
    "devtools/backup/tests/test_restore.py",
    "eventsite/tests/test_tansu.py",
    "eventsite/tests/test_liveness.py",
    "eventsite/tests/test_swagger_in_chromium.py",
)
PROCESS_TESTS = (
    *("eventsite/tests/", "devtools/localstack/", "docker/"),
    *("outbox/rabbitmq/", "outbox/tests/test_lane_model.py", "operations/tests/"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skip",
        action="store_true",
        help="a skipped test fails the run: where everything is installed nothing may be skipped",
    )


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """The test database. Each emptying of it would make the content types and permissions of all
    models again, which took three quarters of the time; a test that needs one makes it. And it would
    truncate every table, also the many that the test has not written to."""
    from django.contrib.auth.management import create_permissions  # noqa: PLC0415
    from django.contrib.contenttypes.management import create_contenttypes  # noqa: PLC0415
    from django.db.models.signals import post_migrate  # noqa: PLC0415

    uid = "django.contrib.auth.management.create_permissions"
    assert post_migrate.disconnect(create_permissions, dispatch_uid=uid)
    assert post_migrate.disconnect(create_contenttypes)
    post_migrate.connect(_forget_content_types)
    _truncate_what_was_written()


def _truncate_what_was_written() -> None:
    from django.db import connection  # noqa: PLC0415

    truncate = connection.ops.sql_flush

    def sql_flush(style: Style, tables: Sequence[str], **options: bool) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname FROM pg_class"
                " WHERE oid = ANY(%s::regclass[]) AND pg_relation_size(oid) > 0",
                ([connection.ops.quote_name(table) for table in tables],),
            )
            written = [row[0] for row in cursor.fetchall()]
        # A table that refers to one of these is empty, or one of these too.
        return list(truncate(style, written, **options | {"allow_cascade": True}))

    connection.ops.sql_flush = sql_flush  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _the_environment_is_left_as_it_was() -> Iterator[None]:
    """What one test leaves set, another one's spans or servers would go by."""
    before = _environment()
    yield
    assert _environment() == before


@pytest.fixture(autouse=True)
def _nobody_holds_a_node_behind_the_test() -> Iterator[None]:
    """The thread that holds a number for ids of posts would go to the database between the tests."""
    yield
    if ids := sys.modules.get("feeds.ids"):
        ids.close()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


@pytest.fixture
def permissions() -> None:
    """Those of all models, in the test's database."""
    from django.apps import apps  # noqa: PLC0415
    from django.contrib.auth.management import create_permissions  # noqa: PLC0415

    for app in apps.get_app_configs():
        create_permissions(app, verbosity=0)


def _forget_content_types(**signal: object) -> None:
    from django.contrib.contenttypes.models import ContentType  # noqa: PLC0415

    ContentType.objects.clear_cache()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first, then those whose tests start processes and wait for them, each in
    its random place: otherwise one worker ends with the longest of them while the others have nothing
    left."""
    for file in LONGEST:
        assert (ROOT / file).exists(), f"{file} has another name now."
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[int, bool]:
    file = item.nodeid.partition("::")[0]
    place = LONGEST.index(file) if file in LONGEST else len(LONGEST)
    return place, not file.startswith(PROCESS_TESTS)


def pytest_collection() -> None:
    gc.disable()  # until everything is imported, of which nothing is garbage


def pytest_collection_finish() -> None:
    """What is there now stays: two thousand tests and all that they import need not be looked
    through for garbage again and again."""
    from outbox.process.gc_tuning import tune_gc  # noqa: PLC0415

    tune_gc()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if (
        report.skipped
        and item.config.getoption("--fail-on-skip")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped, and --fail-on-skip is given: {report.longrepr}"
    return report
