"""The grammar of templates, against a reading of it letter by letter."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.template_text import (
    MissingVariable,
    TemplateError,
    TooLong,
    check_template,
    rendered,
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
pieces = st.sampled_from(
    [
        "{",
        "}",
        "{{",
        "}}",
        "{{{",
        " ",
        ".",
        ".Name",
        "{{.Name}}",
        "{{ .B1 }}",
        "{{.}}",
        "x",
        "é",
        "1",
    ]
)
bodies = st.lists(pieces, max_size=8).map("".join)


def letter_by_letter(body: str, variables: dict[str, str]) -> str:
    """The same without a regular expression. Raises ValueError, LookupError."""
    text, at = "", 0
    while at < len(body):
        if not body.startswith("{{", at):
            text, at = text + body[at], at + 1
            continue
        end = body.find("}}", at)
        inner = body[at + 2 : end].strip(" ")
        name = inner[1:]
        if end < 0 or inner[:1] != "." or not name or name[0] not in LETTERS:
            raise ValueError
        if any(letter not in LETTERS + "0123456789" for letter in name):
            raise ValueError
        text, at = text + variables[name], end + 2
    return text


@given(bodies, st.dictionaries(st.sampled_from(["Name", "B1"]), bodies))
def test_it_is_what_the_contract_says(body: str, variables: dict[str, str]) -> None:
    expected: object
    try:
        expected = letter_by_letter(body, variables)
    except (ValueError, LookupError) as error:
        expected = type(error)
    found: object
    try:
        found = rendered(body, variables, at_most=10_000)
    except TemplateError:
        found = ValueError
    except MissingVariable:
        found = KeyError
    if expected is KeyError and found is ValueError:
        # The whole template is read before the first name is looked up.
        assert [each for each in (body,) if "{{" in each]
        with pytest.raises(ValueError, match=r".*"):
            letter_by_letter(body, {"Name": "", "B1": ""})
        return
    assert found == expected


@pytest.mark.parametrize(
    "body",
    [
        *("{{", "{{}}", "{{Name}}", "{{.1}}", "{{. Name}}", "{{.Name", "{{.Name}", "{{{.Name}}"),
        *("{{.Na me}}", "{{.Name | upper}}", "{{if .Name}}", "{{\t.Name}}", "{{.Ä}}", "{{{{.A}}}}"),
        *("{{.A.B}}", "{{.A{{.B}}}}", "{{printf .A}}", "a }} {{", "{{\n.Name}}"),
    ],
)
def test_what_is_no_template(body: str) -> None:
    with pytest.raises(TemplateError):
        check_template(body)


def test_a_lone_end_is_text_and_values_are_not_looked_into() -> None:
    text = rendered("}} { {.A} {{.A}}}} {{   .A}}", {"A": "{{.A}}"}, at_most=100)
    assert text == "}} { {.A} {{.A}}}} {{.A}}"


def test_a_text_is_not_made_to_find_that_it_is_too_long() -> None:
    """A hundred kilobytes of names, each ten thousand letters."""
    value = "x" * 10_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLong, match="163840000"):
            rendered("{{.A}}" * 16_384, {"A": value}, at_most=160)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert rendered("{{.A}}", {"A": "x" * 160}, at_most=160) == "x" * 160
    with pytest.raises(TooLong):
        rendered("{{.A}}", {"A": "x" * 161}, at_most=160)
