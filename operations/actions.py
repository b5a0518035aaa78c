"""All actions of the page.

The path of an address names the action, its query names what the action acts on. A preview only reads.
"""

from __future__ import annotations

from collections.abc import Mapping

from operations.action import Action
from operations.letter_actions import LETTER_ACTIONS
from operations.switches import SWITCHES

__all__ = ["ACTIONS"]

ACTIONS: Mapping[str, Action] = {**SWITCHES, **LETTER_ACTIONS}
