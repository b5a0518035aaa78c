"""Bodies of POST /orders for Hypothesis: nonsense, and what is nearly right."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["anything", "near_misses"]

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
