"""What Celery carries comes back as it went, odd bytes and all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import serialization

from eventsite import serializer

serializer.register()

values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(alphabet='\udc80\udcff\x00é"\\'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_what_is_written_is_what_is_read(value: Any) -> None:
    content_type, encoding, text = serialization.dumps(value, serializer.NAME)
    assert serialization.loads(text, content_type, encoding, accept=[content_type]) == value


def test_bytes_that_are_no_utf8_survive() -> None:
    text = b"\x80 no JSON".decode("utf-8", "surrogateescape")
    written = serialization.dumps([text], serializer.NAME)
    [read] = serialization.loads(written[2], written[0], written[1], accept=[written[0]])
    assert read.encode("utf-8", "surrogateescape") == b"\x80 no JSON"


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        serializer._decode("nonsense")
