"""Keys and tokens for tests, made without the code under test: with PyJWT, or byte by byte where PyJWT refuses.

And a server for the keys' JWKS document, which answers as a test wishes.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

ASYMMETRIC = ("RS256", "ES256", "EdDSA")


def private_key(algorithm: str, which: int = 0) -> Private:
    """A private key for an algorithm; `which` tells several apart."""
    return _made(algorithm, which)


@functools.cache
def _made(algorithm: str, which: int) -> Private:
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def public_pem(key: Private) -> str:
    """Its public half in PEM."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def private_pem(key: Private) -> str:
    """The key itself in PEM."""
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()


def public_jwk(algorithm: str, key: Private, **fields: Any) -> dict[str, Any]:
    """Its public half as a JSON Web Key."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    made.pop("key_ops", None)
    return {**made, **fields}


def base64url(octets: bytes) -> str:
    """As tokens are written."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def forged(secret: str | bytes, claims: Any, **header: Any) -> str:
    """A token signed with HS256 whatever its header says, and whatever is given as a secret.

    Args:
        secret: what to sign with.
        claims: the payload; bytes go in as they are.
        header: fields beside, or instead of, `alg` and `typ`.

    """
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    head = json.dumps({"alg": "HS256", "typ": "JWT", **header}).encode()
    signed = f"{base64url(head)}.{base64url(payload)}"
    key = secret.encode() if isinstance(secret, str) else secret
    return f"{signed}.{base64url(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


class JwksServer:
    """An HTTP server with a JWKS document.

    Attributes:
        document: what it answers with; bytes as they are.
        status, headers: the rest of the answer.
        fetches: how often it was asked.
        gate: closed, it holds its answers back.
        asked: set once somebody has asked.

    """

    def __init__(self) -> None:
        self.document: Any = {"keys": []}
        self.status = "200 OK"
        self.headers = ""
        self.fetches = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self._port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/jwks.json"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def publish(self, **keys: str) -> None:
        """Have RS256 keys by their names; the value says which."""
        self.document = {
            "keys": [public_jwk("RS256", private_key("RS256", int(which)), kid=kid) for kid, which in keys.items()]
        }

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.fetches += 1
            self.asked.set()
            await self.gate.wait()
            body = self.document if isinstance(self.document, bytes) else json.dumps(self.document).encode()
            writer.write(f"HTTP/1.1 {self.status}\r\n{self.headers}Connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away
        finally:
            writer.close()
