"""Which dashboards there are, and the files that they become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from devtools.dashboards import (
    analytics,
    business,
    feeds,
    notifications,
    orders,
    pipeline,
    relay,
    servers,
    web,
)

__all__ = ["DASHBOARDS", "FOLDER", "texts"]

FOLDER = Path(__file__).resolve().parents[2] / "docker" / "grafana" / "dashboards"
DASHBOARDS = {
    "business": business.made,
    "pipeline": pipeline.made,
    "orders": orders.made,
    "feeds": feeds.made,
    "notifications": notifications.made,
    "analytics": analytics.made,
    "relay": relay.made,
    "web": web.made,
    "servers": servers.made,
}


def texts() -> Mapping[str, str]:
    """File name -> its text."""
    return {
        f"{name}.json": json.dumps(
            made().build(), cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True
        )
        + "\n"
        for name, made in DASHBOARDS.items()
    }
