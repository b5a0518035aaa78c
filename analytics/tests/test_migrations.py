"""The way back loses no figure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.db import InternalError, ProgrammingError, connection

from analytics.models import SalesAddition, SalesMetric, SetAsideFigure

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 3, 12, 12, 0, 30, tzinfo=UTC)


def migrate(name: str) -> None:
    call_command("migrate", "analytics", name, verbosity=0)


@pytest.fixture(autouse=True)
def forward_again() -> Iterator[None]:
    yield
    call_command("migrate", "analytics", verbosity=0)
    SetAsideFigure.objects.all().delete()


def figures() -> dict[tuple[str, str], tuple[Decimal, datetime]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT metric_name, dimension, value, updated_at FROM sales_metrics")
        return {(row[0], row[1]): (row[2], row[3]) for row in cursor.fetchall()}


def add(dimension: str, value: str, *, is_foreign: bool = False) -> None:
    SalesAddition.objects.create(
        metric_names=["orders_total", "revenue_total"],
        dimensions=["all", dimension],
        values=[Decimal(1), Decimal(value)],
        is_foreign=is_foreign,
        written_at=NOON,
    )


def test_what_is_not_folded_is_folded_on_the_way_back() -> None:
    SalesMetric.objects.create(
        metric_name="orders_total", dimension="all", value=253, updated_at=NOON.replace(year=2025)
    )
    add("2026-03-12", "42.50")
    add("2026-03-12", "0.01", is_foreign=True)
    add("2026-03-11", "7")
    migrate("0003")
    assert figures() == {
        ("orders_total", "all"): (256, NOON),
        ("revenue_total", "2026-03-12"): (Decimal("42.51"), NOON),
        ("revenue_total", "2026-03-11"): (7, NOON),
    }


def test_the_way_back_of_the_foreign_figures_keeps_the_sum() -> None:
    add("2026-03-12", "42.50")
    add("2026-03-12", "0.01", is_foreign=True)
    call_command("shell", command="from analytics.services import *; fold_additions()", verbosity=0)
    add("2026-03-12", "1", is_foreign=True)
    migrate("0004")
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM sales_figures WHERE dimension = '2026-03-12'")
        assert cursor.fetchall() == [(Decimal("43.51"),)]
    migrate("0005")
    assert SalesAddition.objects.count() == 1


def test_there_is_no_way_back_while_figures_are_set_aside() -> None:
    SetAsideFigure.objects.create(
        metric_name="top_products", dimension="p", value=1, is_foreign=False, written_at=NOON
    )
    with pytest.raises((InternalError, ProgrammingError), match="set aside"):
        migrate("0003")
    assert SetAsideFigure.objects.count() == 1
