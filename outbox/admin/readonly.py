"""Admin pages of tables that grow without end: read-only, and every query of bounded cost.

All apps build on this. The rules behind it: no COUNT over a table, no OFFSET beyond ROWS_SHOWN, no
sort or condition without an index, whatever a person types into the address bar.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import capfirst

from outbox.envelope import rfc3339

__all__ = [
    "ROWS_SHOWN",
    "BoundedChangeList",
    "BoundedPaginator",
    "ReadOnlyAdmin",
    "ReadOnlyInline",
    "parse_id",
    "utc",
]

ROWS_SHOWN = 10_000
_ON_ONE_LINE = '<span class="nowrap">{}</span>'

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
    _TabularInline = admin.TabularInline[Any, Any]
    _Paginator = Paginator[Any]
else:
    _ModelAdmin = admin.ModelAdmin
    _TabularInline = admin.TabularInline
    _Paginator = Paginator


class BoundedPaginator(_Paginator):
    """Knows at most ROWS_SHOWN rows: what lies behind them is found by its id, not by turning pages."""

    @cached_property
    def count(self) -> int:
        """Rows there are, ROWS_SHOWN at most; keeps the order, so that an index answers it."""
        assert isinstance(self.object_list, QuerySet)
        return self.object_list[:ROWS_SHOWN].count()


class BoundedChangeList(ChangeList):
    """Sorted as the admin class says and never by a column of the address bar."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = str(capfirst(self.opts.verbose_name_plural))
        if self.result_count == ROWS_SHOWN:
            self.title += f": {ROWS_SHOWN:,} of about {_estimated_rows(self.opts.db_table):,} rows"

    def get_results(self, request: HttpRequest) -> None:
        """With a LIMIT even where all rows fit on one page: without one the planner may read and
        sort the table, if its statistics are older than the last rush."""
        super().get_results(request)
        self.result_list = self.result_list[: self.list_max_show_all]

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """The admin class's own order, which ends in a unique column."""
        return [*self.model_admin.get_ordering(request)]


def _estimated_rows(table: str) -> int:
    """What the last ANALYZE or VACUUM counted; at least the rows that were seen."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
            (connection.ops.quote_name(table),),
        )
        return max(int(cursor.fetchone()[0]), ROWS_SHOWN)


class _NoWrites:
    """No permission but to view, whoever asks."""

    def has_add_permission(self, *args: Any) -> bool:
        return False

    def has_change_permission(self, *args: Any) -> bool:
        return False

    def has_delete_permission(self, *args: Any) -> bool:
        return False


class ReadOnlyAdmin(_NoWrites, _ModelAdmin):
    """A list and a detail page. Subclasses set `ordering` to columns of an index, the last unique,
    and `id_field` if a uuid finds a row by an index: search is by that alone."""

    id_field: ClassVar[str] = ""
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count per choice
    list_per_page = 50
    sortable_by = ()
    actions: Any = None

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only what the page's own filters ask for; Django would take any column."""
        names = [getattr(each, "parameter_name", each) for each in self.get_list_filter(request)]
        return lookup in {f"{name}{end}" for name in names for end in ("", "__exact", "__isnull")}

    def get_search_fields(self, request: HttpRequest) -> list[str] | tuple[str, ...]:
        return (self.id_field,) if self.id_field else super().get_search_fields(request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Exactly one id; anything else finds nothing and is told so."""
        if not self.id_field or not search_term.strip():
            return queryset, False
        wanted = parse_id(search_term)
        if wanted is None:
            messages.warning(request, f"“{search_term.strip()[:80]}” is no id: search for a UUID.")
            return queryset.none(), False
        return queryset.filter(**{self.id_field: wanted}), False


class ReadOnlyInline(_NoWrites, _TabularInline):
    """Rows of a detail page."""

    extra = 0
    can_delete = False


def parse_id(text: str) -> UUID | None:
    """The UUID that `text` is, or None."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def utc(field: str) -> Callable[[Any], str]:
    """A column of times to the millisecond in UTC: list_display = (…, utc("created_at"))."""

    @admin.display(description=field.replace("_", " "))
    def column(row: Model) -> str:
        moment: datetime | None = getattr(row, field)
        return format_html(_ON_ONE_LINE, rfc3339(moment)) if moment else "-"

    column.__name__ = field
    return column
