"""Secrets that are marked, and the places where they must not be found."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

__all__ = ["Marks"]


def marked(name: str) -> str:
    """A secret that differs from all others and from ordinary text."""
    return f"s3cr3t-{name}-{secrets.token_hex(16)}"


@dataclass(slots=True)
class Marks:
    """Every secret by its name."""

    known: dict[str, str] = field(default_factory=dict)

    def new(self, name: str) -> str:
        return self.known.setdefault(name, marked(name))

    def found_in(self, places: Mapping[str, str]) -> list[tuple[str, str, str]]:
        """(name, place, what stands around it) of each, also quoted or in base64."""
        return [
            (name, place, text[max(0, at - 80) : at + 40])
            for name, secret in self.known.items()
            for form in (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode())
            for place, text in places.items()
            if (at := text.find(form)) >= 0
        ]
