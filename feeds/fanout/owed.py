"""SQL that finds the followers whose feeds a post has not reached yet."""

from __future__ import annotations

__all__ = ["OWED"]

# SQL: whether `missing` (post_id, bucket; none: of any follower) is still to come: an open slice owes it,
# or the event that is to be cut into slices. The outbox deletes an event after it is applied; the
# event's id follows from the post's (feeds/events.py).
OWED = """
    EXISTS (
        SELECT FROM feed_slices slice
        WHERE slice.post_id = missing.post_id AND slice.kind = 'post'
          AND (missing.bucket IS NULL
               OR missing.bucket >= slice.bucket_from AND missing.bucket < slice.bucket_to)
    ) OR EXISTS (
        SELECT FROM (SELECT lpad(to_hex(missing.post_id), 16, '0') AS bits) AS of_post
        JOIN event_outbox event ON event.event_id = (
            substr(bits, 1, 8) || '-' || substr(bits, 9, 4) || '-8' || substr(bits, 13, 3)
            || '-8' || substr(bits, 16, 1) || '00-000000000001')::uuid
        WHERE NOT EXISTS (
            SELECT FROM inbox_receipt receipt
            WHERE receipt.event_id = event.event_id AND receipt.handler = 'cut_posts'
              AND receipt.outcome <> 1)
    )
"""
