"""What people who look for an error are shown of a payload."""

from __future__ import annotations

import json

import pytest

from outbox.masking import HIDDEN, SHOWN, masked

SECRET = "s3cr3t-value-9f"


@pytest.mark.parametrize(
    "name",
    [
        *("password", "Password", "user_password", "passwd", "secret", "clientSecret", "token"),
        *("access_token", "accessToken", "Authorization", "api_key", "apiKey", "API-Key"),
        *("credentials", "cookie", "session_id", "sessionId", "cardNumber", "card_number"),
        *("cvv", "private_key", "otp"),
    ],
)
def test_a_field_that_is_named_as_a_secret_is_one_wherever_it_stands(name: str) -> None:
    for value in ({name: SECRET}, {"a": [{"b": {name: SECRET}}]}, {name: {"inner": [SECRET]}}):
        shown = masked(json.dumps(value))
        assert SECRET not in shown
        assert HIDDEN in shown


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"postgres://user:{SECRET}@host/db refused",
        f"password={SECRET} was not accepted",
        f'{{"broken": 1, "token": "{SECRET}"',
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
        json.dumps({"note": f"sent with Bearer {SECRET}"}),
        json.dumps(f"Basic {SECRET}"),
        f'{{"password": "two words {SECRET}", "torn": ',
        f'{{"client_secret": "a, b; c {SECRET}',
        f"my_api_key: {SECRET} is unknown",
        json.dumps({"body": json.dumps({"password": f"a b {SECRET}"})}),
        json.dumps({"body": json.dumps([{"in": json.dumps({"cvv": SECRET})}])}),
        json.dumps({"said": f'got {{"password": "a b {SECRET}"}} from them'}),
        json.dumps({"said": f'torn: {{"card_number": "a b {SECRET}'}),
    ],
)
def test_a_secret_in_a_text_is_found_by_its_look(text: str) -> None:
    assert SECRET not in masked(text)


@pytest.mark.parametrize(
    "value",
    [
        {"order_id": "6f2", "amount": 42.5, "items": [{"product_id": "p1", "quantity": 2}]},
        {"passenger": "Ada", "pinned": True, "author_id": "grace", "cardinality": 3, "tokens": ""},
        {"password": None},
        {"said": "[not JSON", "also": "{}", "text": "the token was refused"},
        [1, "two", None],
    ],
)
def test_the_rest_is_left_as_it_is(value: object) -> None:
    assert json.loads(masked(json.dumps(value))) == value


def test_numbers_and_broken_text_are_left_as_they_are() -> None:
    for text in ("12345678901234567890", "not json", "", '{"a": 1'):
        assert masked(text) == text


def test_what_is_long_is_cut_and_says_so() -> None:
    shown = masked("x" * (SHOWN + 7))
    assert shown.endswith("… of 20,007 characters")
    assert len(shown) < SHOWN + 100


def test_a_secret_at_the_cut_is_not_shown_by_half() -> None:
    text = "x" * (SHOWN - 20) + f" Bearer {SECRET}" + "y" * SHOWN
    assert SECRET[:8] not in masked(text)


def test_what_is_deep_is_shown_as_text() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert masked(deep).startswith("[[[")


@pytest.mark.parametrize(
    "piece",
    [
        *("x", "eyJ-", "a:", "token=", "http://a:", "Bearer ", " \t", "a-", "pass", '"'),
        *('token="', "token: ", "secret-", '{"', "\\"),
    ],
)
def test_a_long_text_of_anybody_s_is_soon_read(piece: str) -> None:
    """Who writes it may know the patterns: read anew from each of its places it would take hours."""
    for text in (piece * (1_000_000 // len(piece)), json.dumps({"a": piece * 200_000})):
        assert len(masked(text)) < 2 * SHOWN + 100
