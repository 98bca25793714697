"""Values for tests, by kind: each is what a program that wants this kind accepts, and nobody uses
it elsewhere.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import secrets
import string
from collections.abc import Callable, Mapping
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID
from passlib.hash import sha512_crypt

from pytest_nixos.test_secrets.kind import Kind

__all__ = ["Maker"]

_LETTERS = string.ascii_letters + string.digits
_DAYS = 397  # as long as a browser believes a certificate
_PARTS = re.compile(
    r"(?:^|[-_./])(?:ssl|tls|x509|cert(?:ificate)?|crt|full-?chain|chain|ca|priv(?:ate)?|pub(?:lic)?|privkey|key|pem|file)"
    r"(?=$|[-_./])"
)

SshKey: TypeAlias = Ed25519PrivateKey | rsa.RSAPrivateKey


class Maker:
    """Makes the values of one host; what belongs together, a key and its certificate, fits.

    :param host_name: whom certificates are for, beside ``localhost``.
    """

    def __init__(self, host_name: str) -> None:
        self._host_name = host_name or "localhost"
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._ca_name = _name("pytest-nixos test CA")
        self.ca = self._certificate(
            self._ca_name, self._ca_key.public_key(), authority=True
        ).public_bytes(serialization.Encoding.PEM)
        self._tls: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._ssh: dict[str, SshKey] = {}
        self._wireguard: dict[str, X25519PrivateKey] = {}

    def make(self, kind: Kind, name: str, *, length: int | None = None) -> str:
        """Return a new value.

        :param name: of the secret; a key and its certificate, or both halves of a pair, share what
            is left of their names without those words.
        :param length: of the value that the host has at home, in bytes, where that is known; a
            password is as long.
        """
        stem = _PARTS.sub("", name.lower())
        return _MAKERS[kind](self, stem, length)

    def password(self, length: int | None) -> str:
        """Return a password of letters and digits, for test use."""
        wanted = length if length is not None and 8 <= length <= 1024 else 32
        return "".join(secrets.choice(_LETTERS) for _ in range(wanted))

    def certificate(self, stem: str) -> str:
        """Return a certificate of the run's CA, and that of the CA."""
        own = self._certificate(_name(self._host_name), self._tls_key(stem).public_key())
        return (own.public_bytes(serialization.Encoding.PEM) + self.ca).decode()

    def certificate_key(self, stem: str) -> str:
        """Return the private key of :meth:`certificate`."""
        return _pem(self._tls_key(stem), serialization.PrivateFormat.PKCS8)

    def ssh_key(self, stem: str, make: Callable[[], SshKey]) -> str:
        """Return a private key as OpenSSH writes it."""
        return _pem(self._ssh.setdefault(stem, make()), serialization.PrivateFormat.OpenSSH)

    def ssh_public_key(self, stem: str) -> str:
        """Return the other half of :meth:`ssh_key`."""
        key = self._ssh.setdefault(stem, Ed25519PrivateKey.generate()).public_key()
        text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return f"{text.decode()} test@pytest-nixos\n"

    def wireguard(self, stem: str) -> X25519PrivateKey:
        """Return the private key of that name."""
        return self._wireguard.setdefault(stem, X25519PrivateKey.generate())

    def _tls_key(self, stem: str) -> ec.EllipticCurvePrivateKey:
        return self._tls.setdefault(stem, ec.generate_private_key(ec.SECP256R1()))

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool = False
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        names = [x509.DNSName(name) for name in dict.fromkeys((self._host_name, "localhost"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._ca_name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=_DAYS - 1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._ca_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _pem(key: SshKey | ec.EllipticCurvePrivateKey, format_: serialization.PrivateFormat) -> str:
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, format_, none).decode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=3072)


def _password_hash(maker: Maker) -> str:
    # crypt(5): the method that every release of NixOS takes; its default number of rounds is not
    # written.
    method = sha512_crypt.using(rounds=5000)  # type: ignore[no-untyped-call] # not in its stubs
    return str(method.hash(maker.password(None)))


_MAKERS: Mapping[Kind, Callable[[Maker, str, int | None], str]] = {
    Kind.PASSWORD: lambda maker, _, length: maker.password(length),
    Kind.PASSWORD_HASH: lambda maker, _, __: _password_hash(maker),
    Kind.HEX: lambda _, __, length: secrets.token_hex((length or 64) // 2 or 1),
    Kind.BASE64: lambda _, __, ___: _base64(secrets.token_bytes(32)),
    Kind.WIREGUARD_KEY: lambda maker, stem, _: _base64(maker.wireguard(stem).private_bytes_raw()),
    Kind.WIREGUARD_PUBLIC_KEY: lambda maker, stem, _: _base64(
        maker.wireguard(stem).public_key().public_bytes_raw()
    ),
    Kind.WIREGUARD_PRESHARED_KEY: lambda _, __, ___: _base64(secrets.token_bytes(32)),
    Kind.SSH_KEY: lambda maker, stem, _: maker.ssh_key(stem, Ed25519PrivateKey.generate),
    Kind.SSH_RSA_KEY: lambda maker, stem, _: maker.ssh_key(stem, _rsa),
    Kind.SSH_PUBLIC_KEY: lambda maker, stem, _: maker.ssh_public_key(stem),
    Kind.CERTIFICATE: lambda maker, stem, _: maker.certificate(stem),
    Kind.CERTIFICATE_KEY: lambda maker, stem, _: maker.certificate_key(stem),
    Kind.CA_CERTIFICATE: lambda maker, _, __: maker.ca.decode(),
    Kind.ENVIRONMENT: lambda maker, _, __: f"PYTEST_NIXOS_TEST_SECRET={maker.password(None)}\n",
    Kind.JSON: lambda maker, _, __: json.dumps({"secret": maker.password(None)}) + "\n",
}
