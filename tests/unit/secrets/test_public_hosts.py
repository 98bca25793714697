"""What public hosts have that looks like a secret: the fingerprint of a signing key, values of sops."""

from __future__ import annotations

import base64
import hashlib

import pytest

from pytest_nixos.secrets.pairs import by_name
from pytest_nixos.secrets.scan import find_secrets

FINGERPRINT = "5D1C238558CF0FC39400BA2E" + "E2256EAE7390AF2C"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('git.signing = {\n  signByDefault = true;\n  key = "@";\n};\n', 0),
        ('signing = {\n  key = "@!";\n};\n', 0),
        ('git.signing.key = "@";\n', 0),
        ('api = {\n  key = "@";\n};\n', 1),
        ('signing = { };\napi = {\n  key = "@";\n};\n', 1),
    ],
)
def test_a_fingerprint_below_signing_is_no_secret(text: str, found: int) -> None:
    text = text.replace("@", FINGERPRINT)
    assert len(list(by_name(text, name="git.nix"))) == found


def test_what_sops_encrypted_is_no_secret_whatever_it_looks_like() -> None:
    random = base64.b64encode(hashlib.sha512(b"x").digest()).decode()
    assert len(random) == 88
    value = f"ENC[AES256_GCM,data:{random},iv:{random[:44]},tag:{random[:24]},type:str]"
    text = f"admin-password: {value}\nplain: cache.example-1:{random}\n"
    (hit,) = find_secrets(text, name="secrets.yaml")
    assert (hit.line, hit.kind) == (2, "signing key of Nix")
