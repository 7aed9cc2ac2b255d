"""Certificates for tests: an authority of one's own, and files with what it has issued."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme
from cryptography import x509


class Issuer:
    """Issues certificates into a folder, as whoever renews them would.

    Attributes:
        cert, key: the files.
        certificate: its own, for who is to trust it.

    """

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.certificate = self._authority.cert_pem.bytes()
        self.cert = folder / "chain.pem"
        self.key = folder / "key.pem"

    def write(self, *names: str, days: float = 30.0, since_days: float = 1.0) -> str:
        """Issue one and put it into the files; returns its serial number."""
        now = datetime.datetime.now(datetime.UTC)
        issued = self._authority.issue_cert(
            *(names or ("localhost", "127.0.0.1")),
            not_before=now - datetime.timedelta(days=since_days),
            not_after=now + datetime.timedelta(days=days),
        )
        replace(self.cert, b"".join(each.bytes() for each in issued.cert_chain_pems))
        replace(self.key, issued.private_key_pem.bytes())
        return format(x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number, "X")

    def client_context(self) -> ssl.SSLContext:
        """What trusts this issuer alone."""
        return ssl.create_default_context(cadata=self._authority.cert_pem.bytes().decode())


def replace(file: Path, content: bytes) -> None:
    """Put a file into the place of another at once, as renewals do."""
    fresh = file.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.replace(file)
