"""Bodies for Hypothesis: nonsense, what is nearly right, and what is wrongly written."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

__all__ = ["anything", "near_misses", "reasons", "wrongly_written"]

NAMES = ("user_id", "amount", "customerId", "items", "productId", "quantity", "price")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(1, 10_000),
    st.floats(allow_nan=True, allow_infinity=True),
    st.decimals(0, 10**11, places=2).map(float),
    st.text(max_size=20),
    st.text(alphabet="\x00\ud800\udfff a", max_size=3),
    st.sampled_from(["", " ", "p1", "x" * 255, "x" * 256, "é" * 255]),
)
names = st.sampled_from(NAMES) | st.text(max_size=5)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
line = st.fixed_dictionaries(
    {
        "productId": st.just("p1") | scalars,
        "quantity": st.integers(1, 10_000) | scalars,
        "price": st.integers(0, 10**10) | scalars,
    }
)
near_misses = st.one_of(
    st.fixed_dictionaries({"user_id": st.just("u1") | scalars, "amount": st.just(1) | scalars}),
    st.fixed_dictionaries({"customerId": st.just("c1"), "items": st.lists(line, max_size=3)}),
    st.fixed_dictionaries({"customerId": scalars, "items": st.lists(line | anything, max_size=3)}),
)
reasons = st.fixed_dictionaries({}, optional={"reason": scalars | anything, "why": anything})

# Over names and values of both bodies and of the cancel body, so that a fault meets a field.
_FIELDS = ["user_id", "amount", "customerId", "items", "reason", "ignored"]
_WRONG_CODINGS = ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp1252", "utf-7"]
_NOT_JSON = ["NaN", "Infinity", "-Infinity", "undefined", "True", "0x1", "01", "+1", "1.", ".5"]
_ODD_STRINGS = [
    r"\u0000",
    r"a\u0000b",
    r"\ud800",
    r"\udc00\ud800",
    r"\x",
    "\n",
    "\0",
    "\ufeff",
    "\u202e",
]


@st.composite
def wrongly_written(draw: st.DrawFn, whole: st.SearchStrategy[Any]) -> bytes:
    """A body that may be right but for how it is written: its coding, its end, one of its values."""
    text = json.dumps(draw(whole), ensure_ascii=draw(st.booleans()))
    fault = draw(
        st.sampled_from(["coding", "cut", "number", "constant", "string", "deep", "twice"])
    )
    if fault == "coding":
        return text.encode(draw(st.sampled_from(_WRONG_CODINGS)), "replace")
    data = text.encode("utf-8", "surrogatepass")
    if fault == "cut":
        return data[: draw(st.integers(0, len(data)))]
    field = draw(st.sampled_from(_FIELDS))
    value = {
        "number": _huge_number,
        "constant": st.sampled_from(_NOT_JSON),
        "string": st.sampled_from(_ODD_STRINGS).map(lambda odd: f'"{odd}"'),
        "deep": st.integers(1, 6000).map(lambda depth: "[" * depth + "]" * depth),
        "twice": anything.map(json.dumps),
    }[fault]
    extra = f'"{field}": {draw(value)}'
    if fault == "twice":
        extra += f', "{field}": {draw(value)}'
    inner = data.strip()[1:-1] if data[:1] == b"{" else b""
    return b"{" + inner + (b", " if inner.strip() else b"") + extra.encode() + b"}"


_huge_number = st.one_of(
    st.integers(0, 6000).map(lambda digits: "9" * (digits + 1)),
    st.integers(-(10**20), 10**20).map(lambda exponent: f"1e{exponent}"),
    st.integers(0, 6000).map(lambda digits: "0." + "0" * digits + "1"),
)
