"""What apps publish is compared with the last release: its processes run beside this code."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from eventsite import releases
from eventsite.checks import check_release, release_errors
from eventsite.releases import Release


def release(reads: str, publishes: str, topic: str = "t") -> Release:
    return Release("r", {topic: reads.split()}, {topic: publishes.split()})


def errors(last: Release, now: Release) -> list[str | None]:
    return [error.id for error in release_errors(last, now)]


def test_this_code_runs_beside_the_last_release() -> None:
    assert check_release() == []
    assert releases.newest().name == settings.OUTBOX_RELEASE


def test_a_type_is_read_one_release_before_it_is_published() -> None:
    last = release("A", "A")
    assert errors(last, release("A B", "A")) == []
    assert errors(last, release("A B", "A B")) == ["eventsite.E001"]
    assert errors(release("A B", "A"), release("A B", "A B")) == []


def test_a_type_is_read_as_long_as_the_last_release_publishes_it() -> None:
    assert errors(release("A B", "A B"), release("A B", "A")) == []
    assert errors(release("A B", "A B"), release("A", "A")) == ["eventsite.E002"]
    assert errors(release("A B", "A"), release("A", "A")) == []


def test_a_new_topic_has_no_older_readers() -> None:
    assert errors(release("A", "A"), release("B", "B", topic="new")) == []


def test_a_release_is_cut_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = releases.newest()
    file = tmp_path / "releases.json"
    file.write_bytes(releases.FILE.read_bytes())
    monkeypatch.setattr(releases, "FILE", file)
    call_command("cut_release", "next")
    assert [each.name for each in releases.releases()][-2:] == [before.name, "next"]
    assert releases.newest().publishes.items() >= before.publishes.items()
    with pytest.raises(CommandError, match="has a release 'next'"):
        call_command("cut_release", "next")
