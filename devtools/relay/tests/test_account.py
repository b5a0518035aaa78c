"""The account sees each kind of damage, made by hand."""

from __future__ import annotations

from dataclasses import replace

from devtools.relay.account import FoundMessages, RelayAccount, account
from devtools.relay.messages import BAD, Message, numbered

SENT = [numbered("a", number) for number in range(3)] + [BAD["no-json"]]
WHOLE = FoundMessages(
    kafka=[(0, message.event_id, message.payload or b"") for message in SENT[:3]],
    letters={BAD["no-json"].body: ["body: not JSON"]},
    queued=[],
)


def test_nothing_is_wrong() -> None:
    seen = account(SENT, WHOLE)
    assert seen == RelayAccount(sent=4, in_kafka=3, dead=1)
    assert seen.holds


def test_what_is_still_queued_is_not_lost() -> None:
    seen = account(SENT, replace(WHOLE, kafka=WHOLE.kafka[:2], queued=[SENT[2].body]))
    assert seen == RelayAccount(sent=4, in_kafka=2, dead=1, queued=1)


def test_lost() -> None:
    assert account(SENT, replace(WHOLE, kafka=WHOLE.kafka[1:])).lost == ["a-0"]
    assert account(SENT, replace(WHOLE, letters={})).lost == ["not json"]


def test_altered() -> None:
    other = [(0, "a-0", b"other"), *WHOLE.kafka[1:]]
    assert account(SENT, replace(WHOLE, kafka=other)).altered == ["a-0"]


def test_duplicates() -> None:
    assert account(SENT, replace(WHOLE, kafka=[*WHOLE.kafka, WHOLE.kafka[0]])).duplicates == 1
    twice = {BAD["no-json"].body: ["body: a", "body: b"]}
    assert account(SENT, replace(WHOLE, letters=twice)).letter_copies == 1


def test_reordered_within_a_partition_alone() -> None:
    swapped = [WHOLE.kafka[1], WHOLE.kafka[0], WHOLE.kafka[2]]
    assert account(SENT, replace(WHOLE, kafka=swapped)).reordered == ["a-0"]
    elsewhere = [WHOLE.kafka[1], (1, *WHOLE.kafka[0][1:]), WHOLE.kafka[2]]
    assert account(SENT, replace(WHOLE, kafka=elsewhere)).holds
    # A second copy of an early one, behind a later one, is a duplicate and no more.
    assert account(SENT, replace(WHOLE, kafka=[*WHOLE.kafka, WHOLE.kafka[0]])).reordered == []


def test_in_the_wrong_place() -> None:
    good_as_letter = replace(
        WHOLE, kafka=WHOLE.kafka[1:], letters={SENT[0].body: ["x"], **WHOLE.letters}
    )
    assert account(SENT, good_as_letter).misplaced == ["a-0"]
    wrong_reason = replace(WHOLE, letters={BAD["no-json"].body: ["event_id: empty"]})
    assert account(SENT, wrong_reason).misplaced == ["not json: event_id: empty"]
    refused = Message(b"{}", "r", None, names="x")
    found = FoundMessages(kafka=[(0, "r", b"1")], letters={b"{}": ["x"]}, queued=[])
    assert account([refused], found).misplaced == ["r"]
