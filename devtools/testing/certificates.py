"""Certificates for servers that tests start, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Authority", "Issued"]


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: Path
    key: Path

    @property
    def together(self) -> str:
        """Both in one text, the key first."""
        return self.key.read_text() + self.certificate.read_text()


class Authority:
    """Signs certificates; `certificate` is what a client must have to believe them."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._own = self._key(name)
        _openssl("req", "-x509", "-new", "-key", self._own.key, "-days", "2", "-subj", f"/CN={name}",
                 "-addext", "basicConstraints=critical,CA:TRUE", "-out", self._own.certificate)  # fmt: skip

    @property
    def certificate(self) -> Path:
        return self._own.certificate

    def issue(self, name: str, *, hosts: str = "IP:127.0.0.1") -> Issued:
        """`hosts`: what it is valid for, as openssl writes it: "DNS:a.example,IP:127.0.0.1"."""
        made = self._key(f"{self._name}-{name}")
        request, extensions = made.key.with_suffix(".csr"), made.key.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={hosts}\n")
        _openssl("req", "-new", "-key", made.key, "-subj", f"/CN={name}", "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self._own.certificate, "-CAkey", self._own.key,
                 "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", made.certificate)  # fmt: skip
        return made

    def _key(self, name: str) -> Issued:
        made = Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        _openssl(
            "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", made.key
        )
        return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
