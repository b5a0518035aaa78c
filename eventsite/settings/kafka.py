"""The security settings of Kafka from the environment, checked, in the names of librdkafka."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["SaslMechanism", "Security", "SecurityProtocol"]

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class Security:
    """`authorities`: file of the certificates that may have signed the broker's, None for those of the
    machine. `certificate` and `key` are the client's own."""

    protocol: SecurityProtocol
    mechanism: SaslMechanism
    username: str
    password: str
    authorities: Path | None
    certificate: Path | None
    key: Path | None
    key_password: str

    @property
    def _signs_in(self) -> bool:
        return self.protocol.startswith("SASL_")

    @property
    def _encrypts(self) -> bool:
        return self.protocol.endswith("SSL")

    def refusals(self) -> list[str]:
        """A sentence for each setting that is missing, or that this protocol would pass over in
        silence: a password that is not asked for, a certificate that nobody looks at."""
        return list(self._refusals())

    def _refusals(self) -> Iterator[str]:
        name = f"KAFKA_SECURITY_PROTOCOL={self.protocol}"
        if self._signs_in and not (self.username and self.password):
            yield f"{name} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD."
        if not self._signs_in and (self.username or self.password):
            yield f"{name} signs nobody in, and KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD is set."
        if not self._encrypts and (self.authorities or self.certificate or self.key):
            yield f"{name} does not encrypt, and a KAFKA_SSL_ variable is set."
        if bool(self.certificate) != bool(self.key):
            yield "KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION go together."

    def client_settings(self) -> dict[str, str]:
        """For every client; empty where nothing is said, so that librdkafka's defaults hold."""
        said: dict[str, str] = {}
        if self.protocol != "PLAINTEXT":
            said["security.protocol"] = self.protocol
        if self._signs_in:
            said |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password,
            }
        files = {
            "ssl.ca.location": self.authorities,
            "ssl.certificate.location": self.certificate,
            "ssl.key.location": self.key,
        }
        said |= {setting: str(path) for setting, path in files.items() if path}
        if self.key and self.key_password:
            said["ssl.key.password"] = self.key_password
        return said
