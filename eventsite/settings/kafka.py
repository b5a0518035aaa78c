"""The security settings of Kafka in the environment, checked, and in the names of librdkafka."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import FilePath, model_validator
from pydantic_settings import BaseSettings

__all__ = ["KafkaSecurity"]


class KafkaSecurity(BaseSettings):
    """How clients of Kafka show who they are, and see whom they speak to; files are PEM. Environment
    has these variables beside its own."""

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str = ""
    kafka_sasl_password: str = ""
    kafka_ssl_ca_location: FilePath | None = None  # unset: the authorities of the machine
    kafka_ssl_certificate_location: FilePath | None = None  # of the client, with its key
    kafka_ssl_key_location: FilePath | None = None
    kafka_ssl_key_password: str = ""

    @property
    def _signs_in(self) -> bool:
        return self.kafka_security_protocol.startswith("SASL_")

    @model_validator(mode="after")
    def _kafka_is_reached_in_one_way(self) -> KafkaSecurity:
        if found := list(self._refusals()):
            raise ValueError(" ".join(found))
        return self

    def _refusals(self) -> Iterator[str]:
        """A sentence for each setting that is missing, or that this protocol would pass over in
        silence: a password that is not asked for, a certificate that nobody looks at."""
        name = f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol}"
        certificate, key = self.kafka_ssl_certificate_location, self.kafka_ssl_key_location
        if self._signs_in and not (self.kafka_sasl_username and self.kafka_sasl_password):
            yield f"{name} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD."
        if not self._signs_in and (self.kafka_sasl_username or self.kafka_sasl_password):
            yield f"{name} uses no login, but KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD is set. Unset them, or use SASL_SSL or SASL_PLAINTEXT."
        encrypts = self.kafka_security_protocol.endswith("SSL")
        if not encrypts and (self.kafka_ssl_ca_location or certificate or key):
            yield f"{name} does not encrypt, but a KAFKA_SSL_ variable is set. Unset it, or use SSL or SASL_SSL."
        if bool(certificate) != bool(key):
            yield "Set both KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION, or neither."

    def kafka_client_settings(self) -> dict[str, str]:
        """For every client; empty where nothing is said, so that librdkafka's defaults hold."""
        said: dict[str, str] = {}
        if self.kafka_security_protocol != "PLAINTEXT":
            said["security.protocol"] = self.kafka_security_protocol
        if self._signs_in:
            said |= {
                "sasl.mechanism": self.kafka_sasl_mechanism,
                "sasl.username": self.kafka_sasl_username,
                "sasl.password": self.kafka_sasl_password,
            }
        files = {
            "ssl.ca.location": self.kafka_ssl_ca_location,
            "ssl.certificate.location": self.kafka_ssl_certificate_location,
            "ssl.key.location": self.kafka_ssl_key_location,
        }
        said |= {setting: str(path) for setting, path in files.items() if path}
        if self.kafka_ssl_key_location and self.kafka_ssl_key_password:
            said["ssl.key.password"] = self.kafka_ssl_key_password
        return said
