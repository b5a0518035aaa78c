"""The routing table: every path there is, who may call it, and what the gateway does around it.

Each app declares its paths in its wiring.py. A path that nobody declares still reaches Django, but
like one that needs a key; a test compares the declarations with the URL configuration.
"""

from __future__ import annotations

import re

from django.conf import settings

from restapi.declaration import Path
from restapi.errors import READS

__all__ = ["METRICS", "OF_OPERATORS", "UNKNOWN", "find_path", "scope_for"]

UNKNOWN = Path(pattern="unknown")
_DECLARED: tuple[Path, ...] = settings.WIRING.paths
METRICS = next(path for path in _DECLARED if path.pattern == "metrics")
# Health and metrics.
OF_OPERATORS = [
    path for path in _DECLARED if not path.keyed and not path.limited and "<" not in path.pattern
]


def find_path(path: str) -> Path:
    """The line for a request's path; UNKNOWN for one that nobody has listed."""
    exact = _EXACT.get(path)
    if exact is not None:
        return exact
    for pattern, route in _BY_HEAD.get(path[1:].partition("/")[0], ()):
        if pattern.fullmatch(path):
            return route
    return UNKNOWN


def scope_for(path: Path, method: str) -> str:
    """The scope that a call needs; "" if any key will do."""
    return path.read if method in READS or not path.write else path.write


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(<\w+:\w+>)", f"/{pattern}")
    converters = {"<str": "[^/]+", "<path": "(?s:.*)", "<text": "(?s:.+)"}
    return re.compile(
        "".join(
            converters[part.partition(":")[0]] if part.startswith("<") else re.escape(part)
            for part in parts
        )
    )


_EXACT = {f"/{route.pattern}": route for route in _DECLARED if "<" not in route.pattern}
_BY_HEAD: dict[str, list[tuple[re.Pattern[str], Path]]] = {}
for _route in _DECLARED:
    if "<" in _route.pattern:
        _head = _route.pattern.partition("/")[0]
        _BY_HEAD.setdefault(_head, []).append((_compiled(_route.pattern), _route))
