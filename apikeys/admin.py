"""Pages of the keys. A new key is on the page that answers the form, and on no other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from apikeys import services
from apikeys.models import ApiKey
from apikeys.services import InvalidKey, NewKey
from outbox.admin.readonly import ReadOnlyAdmin, utc_to_the_second
from outbox.admin.search import WantedId

__all__ = ["ApiKeyAdmin"]

GRACE = timedelta(days=1)
REVOKED_AT_ONCE = 100
COUNTED = 10_000  # at most, of what was left out


class NewKeyForm(forms.Form):
    """What create_key takes; what it refuses becomes an error of the form."""

    name = forms.CharField(max_length=63, help_text="Who calls. Letters, digits and . _ @ -")
    scopes = forms.MultipleChoiceField(
        choices=lambda: [(scope, scope) for scope in settings.API_SCOPES],
        widget=forms.CheckboxSelectMultiple,
    )
    expires_in_days = forms.IntegerField(
        required=False, min_value=1, max_value=36_500, help_text="Empty: never."
    )


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    """Newest first. Rows are never edited: a key is made, rotated or revoked."""

    ordering = ("-id",)
    search_help_text = (
        "A whole prefix (ek_ and eight digits), or a whole name; never the key itself"
    )
    actions = ("rotate", "revoke")
    list_display = (
        "prefix",
        "name",
        "scopes",
        utc_to_the_second("created_at"),
        utc_to_the_second("expires_at"),
        utc_to_the_second("revoked_at"),
        utc_to_the_second("last_used_at"),
    )
    fields = (
        ("prefix", "name", "scopes"),
        ("created_at", "expires_at", "revoked_at", "last_used_at"),
    )

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        """By the prefix's index, else by api_keys_of_name."""
        by_prefix = rows.filter(prefix=wanted.text)
        return by_prefix if by_prefix.exists() else rows.filter(name=wanted.text)

    def has_add_permission(self, *args: Any) -> bool:
        request: HttpRequest = args[0]
        return bool(request.user.has_perm("apikeys.add_apikey"))

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """For the actions; `change` stays refused, because no row is edited."""
        return bool(request.user.has_perm("apikeys.change_apikey"))

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewKeyForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            now, days = timezone.now(), form.cleaned_data["expires_in_days"]
            try:
                new = services.create_key(
                    name=form.cleaned_data["name"],
                    scopes=form.cleaned_data["scopes"],
                    expires_at=now + timedelta(days=days) if days else None,
                    by=_user(request),
                    at=now,
                )
            except InvalidKey as error:
                form.add_error(None, str(error))
            else:
                return self._page(request, "shown_once.html", "New API key", new=new)
        return self._page(request, "new_key.html", "Make an API key", form=form)

    @admin.action(
        description="Rotate: a new key, the old one works a day longer", permissions=["manage"]
    )
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """One at a time, because a new key is shown."""
        rows = list(queryset[:2])
        if len(rows) != 1:
            messages.error(request, "Select one key to rotate.")
            return None
        try:
            new: NewKey = services.rotate_key(
                prefix=rows[0].prefix, grace=GRACE, by=_user(request), at=timezone.now()
            )
        except InvalidKey as error:
            messages.error(request, str(error))
            return None
        return self._page(request, "shown_once.html", "New API key", new=new)

    @admin.action(description="Revoke: refused within a second", permissions=["manage"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        live = queryset.filter(revoked_at=None).order_by("id").values_list("prefix", flat=True)
        chosen = list(live[: COUNTED + 1])
        for prefix in chosen[:REVOKED_AT_ONCE]:
            done = services.revoke_key(prefix=prefix, by=_user(request), at=timezone.now())
            word = "is revoked" if done else "was already revoked"
            messages.success(request, f"{prefix} {word}.")
        if not chosen:
            messages.warning(request, "All selected keys were already revoked.")
        if (more := len(chosen) - REVOKED_AT_ONCE) > 0:
            count = f"{more:,}" if len(chosen) <= COUNTED else f"{more - 1:,} or more"
            messages.error(
                request,
                f"{count} of the selected keys are NOT revoked, because one action revokes at most"
                f" {REVOKED_AT_ONCE}. Repeat it for them.",
            )

    def _page(
        self, request: HttpRequest, template: str, title: str, **context: Any
    ) -> TemplateResponse:
        back = reverse("admin:apikeys_apikey_changelist")
        context |= {**self.admin_site.each_context(request), "title": title, "back": back}
        context["media"] = self.media
        return TemplateResponse(request, f"admin/apikeys/{template}", context)


def _user(request: HttpRequest) -> str:
    return str(request.user.get_username())
