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
        ('signing = {\n  gpgPath = "${pkgs.gnupg}/bin/gpg2";\n  key = "@";\n};\n', 0),
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


@pytest.mark.parametrize(
    "reference",
    [
        "github:ada/nix-secrets",
        "gitlab:ada/secrets/main?dir=a",
        "sourcehut:~ada/secrets",
        "path:/home/ada/secrets",
    ],
)
def test_an_input_that_is_called_secrets_is_none(reference: str) -> None:
    text = f'inputs.nix-secrets = {{\n  # The access token ends.\n  url = "{reference}";\n}};\n'
    assert find_secrets(text, name="flake.nix") == ()
    (hit,) = find_secrets(text.replace(reference, PASSWORD), name="flake.nix")
    assert hit.line == 3


PASSWORD = "Xk7" + "-moor-Tide-91"


@pytest.mark.parametrize("kind", ["AGE ENCRYPTED FILE", "PGP MESSAGE"])
def test_only_the_encrypted_block_of_a_file_is_unreadable(kind: str) -> None:
    inside = f"password: {PASSWORD}"
    block = f"-----BEGIN {kind}-----\n\n{inside}\n-----END {kind}-----\n"
    assert find_secrets(block, name="x") == ()
    (hit,) = find_secrets(f"{block}admin_password: {PASSWORD}\n", name="x")
    assert hit.line == 5


def test_lines_of_ansible_vault_are_unreadable_and_those_behind_are_not() -> None:
    vault = "$ANSIBLE_VAULT;1.1;AES256\n" + "61" * 40 + "\n" + "62" * 20 + "\n"
    assert find_secrets(vault, name="x") == ()
    (hit,) = find_secrets(f"{vault}admin_password: {PASSWORD}\n", name="x")
    assert hit.line == 4


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"password_unencrypted: {PASSWORD}\n", 1),
        (f"db:\n  password: |\n    {PASSWORD}\n  port: 1\n", 3),
        (f"password: >-\n  {PASSWORD}", 2),
    ],
)
def test_values_that_stay_readable_in_yaml(text: str, line: int) -> None:
    (hit,) = find_secrets(text, name="secrets.yaml")
    assert hit.line == line


@pytest.mark.parametrize(
    "text", ["password: |\n  run this\n", "port: |\n  x8\n", "password: |\n  a\n  b\n"]
)
def test_texts_in_yaml_are_no_passwords(text: str) -> None:
    assert find_secrets(text, name="secrets.yaml") == ()
