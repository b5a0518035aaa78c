"""What can be done on the page, each with a look at what it would do.

An action is named in the address, what it acts on stands in the query. A preview reads and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from operations.action import Action
from operations.letter_actions import LETTER_ACTIONS
from operations.switches import SWITCHES

__all__ = ["ACTIONS"]

ACTIONS: Mapping[str, Action] = {**SWITCHES, **LETTER_ACTIONS}
