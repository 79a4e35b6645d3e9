"""A real authorization server on loopback: its metadata, its keys, made here, and tokens that it signs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

RESOURCE = "https://code.example.org/mcp"


@dataclass
class SigningKey:
    key_id: str
    algorithm: str
    private: Any

    @classmethod
    def made(cls, key_id: str, algorithm: str = "ES256") -> SigningKey:
        private: Any
        if algorithm == "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
        elif algorithm == "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        else:
            private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return cls(key_id, algorithm, private)

    def public(self, **more: str) -> dict[str, Any]:
        form: Any = {"ES": ECAlgorithm, "Ed": OKPAlgorithm}.get(self.algorithm[:2], RSAAlgorithm)
        return {**form.to_jwk(self.private.public_key(), as_dict=True), "kid": self.key_id, "use": "sig", **more}


@dataclass
class AuthorizationServer:
    """`documents` are what it serves, by path; `asked` the paths of the requests that came."""

    url: str
    key: SigningKey
    documents: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def publish(self, *keys: SigningKey, at: str = "/.well-known/oauth-authorization-server") -> None:
        self.documents[at] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.documents["/keys"] = {"keys": [key.public() for key in keys]}

    def token(
        self,
        subject: str = "ann",
        key: SigningKey | None = None,
        headers: dict[str, Any] | None = None,
        algorithm: str = "",
        **claims: Any,
    ) -> str:
        """A token that is valid for `RESOURCE` but for what is given; a claim given as None is left out."""
        now = int(time.time())
        whole = {"iss": self.url, "aud": RESOURCE, "sub": subject, "iat": now, "exp": now + 600, **claims}
        key = key or self.key
        return jwt.encode(
            {name: value for name, value in whole.items() if value is not None},
            key.private,
            algorithm or key.algorithm,
            headers={"kid": key.key_id, "typ": "at+jwt", **(headers or {})},
        )


@contextmanager
def authorization_server(key: SigningKey | None = None) -> Iterator[AuthorizationServer]:
    """One that runs as long as the block and has published its key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running.asked.append(self.path)
            found = running.documents.get(self.path)
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        key = key or SigningKey.made("first")
        running = AuthorizationServer(f"http://127.0.0.1:{server.server_port}", key)
        running.publish(key)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()
