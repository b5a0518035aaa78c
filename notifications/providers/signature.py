"""Signatures of webhooks, as Standard Webhooks describes them (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

__all__ = ["key_of_secret", "signed_headers"]

_PREFIX = "whsec_"


def key_of_secret(secret: str) -> bytes:
    """The bytes of a secret `whsec_<base64>`, with or without its prefix. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("secret must be base64 after whsec_") from error
    if not 24 <= len(key) <= 64:
        raise ValueError("secret must have 24 to 64 bytes")
    return key


def signed_headers(key: bytes, *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """webhook-id, webhook-timestamp (seconds) and webhook-signature. The id has no full stop: it
    stands between full stops in what is signed."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digest = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{digest}",
    }
