"""A value is what a program that wants its kind accepts."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from passlib.hash import sha512_crypt

from pytest_nixos.test_secrets.kind import Kind
from pytest_nixos.test_secrets.maker import Maker

MAKER = Maker("web")


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_is_made_and_new_each_time(kind: Kind) -> None:
    values = {Maker("web").make(kind, "x") for _ in range(2)}
    assert len(values) == 2 and all(values)


def test_passwords_are_as_long_as_at_home() -> None:
    assert len(MAKER.make(Kind.PASSWORD, "a", length=20)) == 20
    assert len(MAKER.make(Kind.PASSWORD, "a", length=2)) == 32
    assert len(MAKER.make(Kind.PASSWORD, "a")) == 32


def test_a_password_hash_is_one_that_crypt_takes() -> None:
    text = MAKER.make(Kind.PASSWORD_HASH, "alice")
    assert text.startswith("$6$") and sha512_crypt.identify(text)


def test_a_certificate_fits_its_key_and_is_of_the_ca() -> None:
    own, ca = x509.load_pem_x509_certificates(MAKER.make(Kind.CERTIFICATE, "web-cert").encode())
    key = serialization.load_pem_private_key(
        MAKER.make(Kind.CERTIFICATE_KEY, "web-key").encode(), None
    )
    assert own.public_key() == key.public_key()
    own.verify_directly_issued_by(ca)
    assert ca.public_bytes(serialization.Encoding.PEM) == MAKER.ca
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["web", "localhost"]
    other = serialization.load_pem_private_key(
        MAKER.make(Kind.CERTIFICATE_KEY, "mail-key").encode(), None
    )
    assert isinstance(other, ec.EllipticCurvePrivateKey)
    assert other.public_key() != own.public_key()


def test_both_halves_of_an_ssh_key_fit() -> None:
    private = MAKER.make(Kind.SSH_KEY, "deploy-key")
    key = serialization.load_ssh_private_key(private.encode(), None)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    assert MAKER.make(Kind.SSH_PUBLIC_KEY, "deploy-key.pub").startswith(public.decode())


def test_both_halves_of_a_wireguard_key_fit() -> None:
    raw = base64.b64decode(MAKER.make(Kind.WIREGUARD_KEY, "wg0-private-key"))
    public = base64.b64encode(
        X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    )
    assert MAKER.make(Kind.WIREGUARD_PUBLIC_KEY, "wg0-public-key") == public.decode()


def test_json_is_json() -> None:
    assert json.loads(MAKER.make(Kind.JSON, "a.json"))["secret"]
