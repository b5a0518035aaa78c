"""The index of what sockets want, against a dict that is looked through."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from eventsite.web.status_hub.index import Index

SUBJECTS = ("a", "b", "c")
KEYS = range(4)
Step = tuple[str, str, frozenset[int]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("enter", "leave", "keys")),
        st.sampled_from(SUBJECTS),
        st.frozensets(st.sampled_from(KEYS)),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_finds_whoever_wants_a_key(steps: list[Step]) -> None:
    index: Index[int] = Index()
    seats: dict[str, list[int]] = {}
    keys: dict[str, frozenset[int]] = {}
    for number, (what, subject, wanted) in enumerate(steps):
        if what == "enter":
            index.enter(subject)
            seats.setdefault(subject, []).append(number)
            if number % 3:  # the others are not live yet
                index.set_live(subject, number)
        elif what == "leave" and subject in seats:
            index.leave(subject, seats[subject].pop())
            if not seats[subject]:
                del seats[subject]
                keys.pop(subject, None)
        elif what == "keys":
            index.set_keys(subject, wanted)
            if subject in seats:
                keys[subject] = wanted
    assert set(index.subjects) == set(seats)
    for asked in ([0], [1, 2], list(KEYS)):
        found = {
            number
            for subject, numbers in seats.items()
            for number in numbers
            if number % 3 and keys.get(subject, frozenset()) & set(asked)
        }
        assert index.seats(asked) == found
        for subject in seats:
            wants = bool(keys.get(subject, frozenset()) & set(asked))
            assert index.wants(subject, asked) == wants


def test_nothing_is_left_of_who_has_left() -> None:
    index: Index[int] = Index()
    index.enter("a")
    index.set_keys("a", ["x", "y"])
    index.set_live("a", 1)
    index.leave("a", 1)
    assert not index
    assert index._by_key == {}
