"""The index of subscriptions: a change finds its sockets by its keys and is never compared with
each socket in turn."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["Index"]

Seat = TypeVar("Seat", bound=Hashable)


class _Subject(Generic[Seat]):
    """What some sockets follow: its keys, and those of the sockets that are live."""

    __slots__ = ("keys", "live", "seats")

    def __init__(self) -> None:
        self.keys: tuple[Hashable, ...] = ()
        self.seats = 0
        self.live: set[Seat] = set()


class Index(Generic[Seat]):
    """Key -> subjects that have it -> their live seats. A subject is there while it has seats."""

    def __init__(self) -> None:
        self._subjects: dict[Hashable, _Subject[Seat]] = {}
        # With the key itself, so that subjects share one object of it.
        self._by_key: dict[Hashable, tuple[Hashable, set[_Subject[Seat]]]] = {}

    def __contains__(self, subject: Hashable) -> bool:
        return subject in self._subjects

    def __bool__(self) -> bool:
        return bool(self._subjects)

    @property
    def subjects(self) -> Collection[Hashable]:
        return self._subjects.keys()

    def enter(self, subject: Hashable) -> None:
        """One seat more, which gets nothing yet."""
        self._subjects.setdefault(subject, _Subject()).seats += 1

    def leave(self, subject: Hashable, seat: Seat | None = None) -> None:
        """One seat less: this one, or one that was never live."""
        found = self._subjects[subject]
        if seat is not None:
            found.live.discard(seat)
        found.seats -= 1
        if not found.seats:
            self.set_keys(subject, ())
            del self._subjects[subject]

    def set_live(self, subject: Hashable, seat: Seat) -> None:
        """From now on it gets what its subject wants."""
        self._subjects[subject].live.add(seat)

    def live(self) -> Iterator[Seat]:
        for subject in self._subjects.values():
            yield from subject.live

    def set_keys(self, subject: Hashable, keys: Iterable[Hashable]) -> None:
        """What the subject wants from now on. One that has left is passed over."""
        found = self._subjects.get(subject)
        if found is None:
            return
        wanted = set(keys)
        for key in found.keys:
            if key not in wanted:
                _, subjects = self._by_key[key]
                subjects.discard(found)
                if not subjects:
                    del self._by_key[key]
        kept = []
        for key in wanted:
            known, subjects = self._by_key.setdefault(key, (key, set()))
            subjects.add(found)
            kept.append(known)
        found.keys = tuple(kept)

    def seats(self, keys: Iterable[Hashable]) -> set[Seat]:
        """The live seats that want a change with these keys, each once."""
        found: set[Seat] = set()
        for key in keys:
            if key in self._by_key:
                for subject in self._by_key[key][1]:
                    found |= subject.live
        return found

    def wants(self, subject: Hashable, keys: Iterable[Hashable]) -> bool:
        """Whether a subject that is here wants a change with these keys."""
        found = self._subjects[subject]
        return any(key in self._by_key and found in self._by_key[key][1] for key in keys)
