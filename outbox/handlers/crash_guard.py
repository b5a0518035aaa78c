"""Finding the event that ends its process, or never ends (guarantees.md#r11).

It raises no exception, so a chunk that was sent before notes in its position how far it is about to go,
in a transaction of its own. A note that a later attempt finds belongs to one that never ended: that
range is applied in pieces with notes of their own, until one event is left."""

from __future__ import annotations

from dataclasses import dataclass, replace

from outbox.conf import BRIDGE
from outbox.inbox import positions
from outbox.inbox.chunk import Chunk
from outbox.inbox.positions import Position

__all__ = ["PieceSize", "next_piece"]


@dataclass(slots=True)
class PieceSize:
    """Running state of one run over a chunk: up to offset `until`, pieces of `size` events."""

    size: int = 0
    until: int = 0


def next_piece(
    handler: str, chunk: Chunk, position: Position, pieces: PieceSize
) -> tuple[Chunk, bool]:
    """Under the lock of the position: the next piece to apply, its start noted; and whether it is
    one event that was begun often enough to be parked instead."""
    rest = [(offset, event) for offset, event in chunk.events if offset >= position.next_offset]
    tries = 0
    if position.started_next is not None:
        suspected = sum(offset < position.started_next for offset, _ in rest)
        pieces.size = max(1, suspected // BRIDGE.suspect_pieces)
        pieces.until = position.started_next
        tries = position.started_tries if suspected == 1 else 0
    careful = position.next_offset < pieces.until
    size = pieces.size if careful else len(rest)
    end = rest[size][0] if len(rest) > size else chunk.next_offset
    piece = replace(
        chunk, first_offset=position.next_offset, next_offset=end, events=tuple(rest[:size])
    )
    if tries >= BRIDGE.suspect_tries and len(piece.events) == 1:
        return piece, True
    positions.note_start(handler, chunk.partition_key, end, tries + 1)
    return piece, False
