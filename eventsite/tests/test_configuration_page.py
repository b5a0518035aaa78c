"""docs/configuration.md says what the settings say: every variable, with its default."""

from __future__ import annotations

import pytest

from devtools import configuration

KNOWN = configuration.fields()
DESCRIBED = {variable.name: variable for variable in configuration.described()}


def test_the_page_is_up_to_date() -> None:
    assert configuration.PAGE.read_text() == configuration.page(), "Run `make configuration`."


def test_every_variable_of_the_settings_is_described() -> None:
    older = {variable.older for variable in DESCRIBED.values()}
    assert set(KNOWN) - set(DESCRIBED) - older == set()
    assert [name for name, variable in DESCRIBED.items() if not variable.words] == []


@pytest.mark.parametrize("name", sorted(set(KNOWN) & set(DESCRIBED)))
def test_a_described_default_is_the_real_one(name: str) -> None:
    default = {"off": {"false", "off"}, "on": {"true", "on"}}
    real = configuration.shown(KNOWN[name].default)
    if name == "REDIS_URL":  # made of REDIS_ADDR where it is unset
        real = "redis://localhost:6379/0"
    assert DESCRIBED[name].default in default.get(real, {real})


def test_bounds_are_shown() -> None:
    assert "| `MAX_RETRIES` | `5` | whole number ≥ 1 |" in configuration.page()
