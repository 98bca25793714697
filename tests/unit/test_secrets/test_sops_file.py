"""The format of sops: what is written is decrypted here by the steps of its documentation, and
real files of sops are read where its sources are at hand.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pytest_nixos.test_secrets.sops_file import NotSops, Tree, lengths_of, written

SOPS_NIX = os.environ.get("PYTEST_NIXOS_SOPS_NIX", "")
IDENTITY = pyrage.x25519.Identity.generate()
NESTED: Tree = {"a": "one", "n": {"x": "two\nlines", "e": "", "y_unencrypted": "3"}}


def opened(key: bytes, text: str, additional: str) -> str:
    match = re.fullmatch(r"ENC\[AES256_GCM,data:([^,]*),iv:([^,]*),tag:([^,]*),type:(\w+)\]", text)
    assert match is not None
    data, iv, tag = (base64.b64decode(match[n]) for n in (1, 2, 3))
    return AESGCM(key).decrypt(iv, data + tag, additional.encode()).decode()


def walked(tree: dict[str, Any], key: bytes, path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, dict):
                yield from walked(entry, key, f"{path}{name}:")
            else:
                yield f"{path}{name}", opened(key, entry, f"{path}{name}:") if entry else ""


def decrypted(document: dict[str, Any], identity: pyrage.x25519.Identity) -> dict[str, str]:
    metadata = document.pop("sops")
    for recipient in metadata["age"]:
        try:
            key = pyrage.decrypt(recipient["enc"].encode(), [identity])
        except pyrage.DecryptError:
            continue
        break
    found = list(walked(document, key))
    mac = hashlib.sha512("".join(value for _, value in found).encode()).hexdigest().upper()
    assert opened(key, metadata["mac"], metadata["lastmodified"]) == mac
    return dict(found)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_what_is_written_is_decrypted_by_the_books(form: str) -> None:
    text = written(NESTED, form, IDENTITY.to_public())
    assert "two" not in text and "y_unencrypted" in text
    assert decrypted(yaml.safe_load(text), IDENTITY) == {
        "a": "one",
        "n:x": "two\nlines",
        "n:e": "",
        "n:y_unencrypted": "3",
    }


def test_another_key_opens_nothing() -> None:
    text = written({"a": "x"}, "json", IDENTITY.to_public())
    with pytest.raises((pyrage.DecryptError, UnboundLocalError, InvalidTag)):
        decrypted(json.loads(text), pyrage.x25519.Identity.generate())


def test_every_format_shows_its_names_and_lengths() -> None:
    trees: dict[str, Tree] = {
        "dotenv": {"A": "x", "B": "y z"},
        "ini": {"Section": {"key": "value"}},
        "binary": {"data": "blob\n"},
        "yaml": NESTED,
    }
    shown = {
        form: lengths_of(written(tree, form, IDENTITY.to_public()), form, about="f")
        for form, tree in trees.items()
    }
    assert shown["dotenv"] == {"A": 1, "B": 3}
    assert shown["ini"] == {"Section": {"key": 5}}
    assert shown["binary"] == {"data": 5}
    assert shown["yaml"] == {"a": 3, "n": {"x": 9, "e": None, "y_unencrypted": 1}}


@pytest.mark.parametrize(
    ("text", "form", "words"),
    [
        ("token: plain\n", "yaml", "no metadata"),
        ("a: [", "yaml", "format yaml"),
        ("{", "json", "format json"),
        ("A=1\n", "dotenv", "no metadata"),
        ("no assignment\n", "dotenv", "format dotenv"),
        ("[a]\nb = 1\n", "ini", "no metadata"),
        ("plain text", "binary", "format binary"),
        ("- a\n", "yaml", "no metadata"),
    ],
)
def test_what_sops_did_not_write_is_told(text: str, form: str, words: str) -> None:
    with pytest.raises(NotSops, match=words) as caught:
        lengths_of(text, form, about="secrets.yaml")
    assert "sops --encrypt" in caught.value.remedy


@pytest.mark.skipif(not SOPS_NIX, reason="needs PYTEST_NIXOS_SOPS_NIX: a checkout of sops-nix")
def test_real_files_of_sops_are_read() -> None:
    assets = Path(SOPS_NIX) / "pkgs/sops-install-secrets/test-assets"
    key = re.search(r"AGE-SECRET-KEY-\w+", (assets / "age-keys.txt").read_text())
    assert key is not None
    identity = pyrage.x25519.Identity.from_str(key[0])
    text = (assets / "secrets.yaml").read_text()
    plain = decrypted(yaml.safe_load(text), identity)
    assert plain["test_key"] == "test_value"
    lengths = lengths_of(text, "yaml", about="f")
    assert lengths["test_key"] == len("test_value")
    assert lengths_of((assets / "secrets.env").read_text(), "dotenv", about="f")["hello"] == 46
    assert "hello" in lengths_of((assets / "secrets.ini").read_text(), "ini", about="f")["Welcome!"]
    assert lengths_of((assets / "secrets.bin").read_text(), "binary", about="f") == {"data": 13}
