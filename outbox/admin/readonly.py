"""Admin pages of tables that grow without end: read-only, and every query of bounded cost.

All apps build on this. The rules behind it: no COUNT over a table, no OFFSET beyond ROWS_SHOWN, no
sort or condition without an index, whatever a person types into the address bar.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import (
    BooleanField,
    DateTimeField,
    JSONField,
    Model,
    QuerySet,
    TextField,
)
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from outbox.admin.search import WantedId
from outbox.database.ask import row_of
from outbox.envelope import rfc3339
from outbox.masking import masked

__all__ = [
    "PAUSED",
    "ROWS_SHOWN",
    "BoundedChangeList",
    "BoundedPaginator",
    "ReadOnlyAdmin",
    "ReadOnlyInline",
    "clipped",
    "journey",
    "masked_text",
    "outbox_links",
    "short_id",
    "shorten",
    "utc",
    "utc_to_the_second",
    "whole_id",
]

ROWS_SHOWN = 10_000
NUL = "\x00"
TEXT_SHOWN = 120  # characters of a text in a list
Column = Any  # a function of a row; where Django takes one, its stubs know of names alone
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

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        # PostgreSQL's text holds no NUL, so none can be asked for.
        if any(NUL in value for values in request.GET.lists() for value in values[1]):
            raise IncorrectLookupParameters
        super().__init__(request, *args, **kwargs)
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
    [estimated] = row_of(
        "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
        (connection.ops.quote_name(table),),
    )
    return max(int(estimated), ROWS_SHOWN)


class _NoWrites:
    """No permission but to view, whoever asks."""

    def has_add_permission(self, *args: Any) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission


class ReadOnlyAdmin(_NoWrites, _ModelAdmin):
    """A list and a detail page. Subclasses set `ordering` to columns of an index, the last unique.
    Those that can be searched set `search_help_text`, and define `find` where a search
    is for more than the id."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count per choice
    list_per_page = 50
    sortable_by = ()
    actions: Sequence[str] | None = None

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only what the page's own filters ask for; Django would take any column."""
        names = [getattr(each, "parameter_name", each) for each in self.get_list_filter(request)]
        return lookup in {f"{name}{end}" for name in names for end in ("", "__exact", "__isnull")}

    class Media:
        css: ClassVar = {"all": ("outbox/admin.css",)}

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Times in UTC, texts without what looks like a secret, and yes or no in words: Django's icon for "not
        paused" is a red cross."""
        return [
            tuple(map(self._in_words, each))
            if isinstance(each, list | tuple)
            else self._in_words(each)
            for each in super().get_fields(request, obj)
        ]

    def _in_words(self, name: Any) -> Any:
        known = {field.name: field for field in self.opts.get_fields()}
        match known.get(name):
            case BooleanField():
                return _column(name, lambda value: "yes" if value else "no")
            case DateTimeField():
                return utc(name)
            case TextField() | JSONField():
                return masked_text(name)
        return name

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        return None if NUL in object_id else super().get_object(request, object_id, from_field)

    def get_search_fields(self, request: HttpRequest) -> Any:
        """Django shows the search box only if a field is named; `find` does the search."""
        given = super().get_search_fields(request)
        return given or ((self.opts.pk.name,) if self.search_help_text else ())

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Exactly this id; the page says when nothing has it, and what was not looked at."""
        if not self.search_help_text or not search_term.strip():
            return queryset, False
        wanted = WantedId.parse(search_term)
        found = self.find(queryset, wanted)
        if request.method == "GET":
            if not found.exists():
                messages.warning(request, f"Nothing here has the id “{shorten(wanted.text)}”.")
            for note in wanted.notes:
                messages.info(request, note)
        return found, False

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        """The rows with this id, by an index: the one whose key it is."""
        return rows.filter(pk=wanted.uuid) if wanted.uuid else rows.none()


class ReadOnlyInline(_NoWrites, _TabularInline):
    extra = 0
    can_delete = False


def shorten(text: str, length: int = TEXT_SHOWN) -> str:
    """Not longer than `length`; what was left out is an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def journey(field: str) -> Column:
    """The way to the page that says where an id is, which operations/ serves."""
    link = '<a href="/ops/journey?{}">every hop</a>'
    return _column(field, lambda id_: format_html(link, urlencode({"id": id_})), title="journey")


def outbox_links(events: Iterable[object]) -> SafeString:
    """Each event leads to its row in the outbox."""
    page = reverse("admin:outbox_outboxevent_changelist")
    links = ((page, event, event) for event in events)
    return format_html_join(SafeString("<br>"), '<a href="{}?q={}">{}</a>', links)


def short_id(field: str, kind: str = "id short") -> Callable[[Any], str]:
    """A column of ids of which the end is shown: list_display = (…, short_id("event_id"))."""

    def shown(value: Any) -> str:
        text = str(value)
        return format_html(
            '<span class="{}" title="{}"><bdi dir="ltr">{}</bdi></span>', kind, text, text
        )

    return _column(field, shown)


def whole_id(field: str) -> Callable[[Any], str]:
    """A column of ids, for lists that have the room."""
    return short_id(field, "id")


def clipped(field: str) -> Callable[[Any], str]:
    """A column of texts of any length, TEXT_SHOWN characters at most, without what looks like a secret."""
    return _column(field, lambda text: shorten(masked(text)))


def masked_text(field: str) -> Column:
    """A text, or JSON, without what looks like a secret."""
    return _column(
        field,
        lambda value: masked(
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        ),
    )


def utc(field: str) -> Column:
    """A column of times to the millisecond in UTC: list_display = (…, utc("created_at"))."""
    return _column(field, lambda moment: format_html(_ON_ONE_LINE, rfc3339(moment)))


def utc_to_the_second(field: str) -> Callable[[Any], str]:
    """A column of times for lists that have many of them."""
    return _column(field, lambda moment: format_html(_ON_ONE_LINE, f"{rfc3339(moment)[:19]}Z"))


def _column(field: str, shown: Callable[[Any], str], title: str = "") -> Callable[[Any], str]:
    @admin.display(description=title or field.replace("_", " "))
    def column(row: Model) -> str:
        value = getattr(row, field)
        return "-" if value is None or value == "" else shown(value)

    column.__name__ = title or field
    return column


# A word, because Django's icon for False is a red cross.
PAUSED = _column("paused", lambda paused: "paused" if paused else "-")
