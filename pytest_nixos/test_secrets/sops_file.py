"""Files of sops: which names one shows, and how one is written.

The format, as of sops 3.7 to 3.10 (its packages ``aes``, ``stores`` and ``sops``): each value is
AES-256-GCM with a nonce of 32 bytes and its path as additional data; a SHA-512 over all values in
order, encrypted with the time of the change as additional data, guards the whole; the data key is
encrypted to each recipient with age. Written are strings only: nothing else can be a secret of
sops-nix.
"""

from __future__ import annotations

import base64
import binascii
import configparser
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyrage
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pytest_nixos.errors import NixosError

__all__ = ["FORMATS", "NotSops", "Tree", "lengths_of", "written"]

#: What ``sops.secrets.<name>.format`` can be.
FORMATS = ("yaml", "json", "binary", "dotenv", "ini")

#: Names to values; a value is the secret's text, or what is below the name.
Tree = Mapping[str, "str | Tree"]

_ENCRYPTED = re.compile(r"ENC\[AES256_GCM,data:([^,]*),iv:[^,]*,tag:[^,]*,type:(\w+)\]")
_NONCE_BYTES = 32
_TAG_BYTES = 16
_MOST_BYTES = 8 << 20
_MODIFIED = "2024-01-01T00:00:00Z"
_VERSION = "3.9.0"


class NotSops(NixosError):
    """A file is not one that sops wrote."""


def lengths_of(text: str, format_: str, *, about: str) -> dict[str, Any]:
    """Return the names that an encrypted file shows, each with the length of its value in bytes,
    ``None`` where that is not told.

    :param about: the file, for the error.
    :raises NotSops: if it is none of sops, or not in that format.
    """
    try:
        data = _parsed(text, format_)
    except (ValueError, yaml.YAMLError, configparser.Error, RecursionError) as err:
        raise NotSops(
            f"{about}: is no file of sops in the format {format_}: {str(err).splitlines()[0]}",
            remedy=f"encrypt it with `sops --encrypt --in-place {about}`, or declare its format",
        ) from err
    if not isinstance(data, dict) or not _has_metadata(data, format_):
        raise NotSops(
            f"{about}: is no file of sops: it has no metadata of sops, so nothing can decrypt it",
            remedy=f"encrypt it with `sops --encrypt --in-place {about}`",
        )
    if format_ == "dotenv":
        data = {name: value for name, value in data.items() if not name.startswith("sops_")}
    return {str(name): _length(value) for name, value in data.items() if name != "sops"}


def written(tree: Tree, format_: str, recipient: pyrage.x25519.Recipient) -> str:
    """Encrypt values as sops does.

    A YAML file is written as JSON, which is YAML too.

    :param format_: one of :data:`FORMATS`; ``binary`` has its text under ``data``, ``ini`` has
        sections.
    """
    cipher = _Cipher(os.urandom(32))
    encrypted = cipher.tree(tree)
    metadata = {
        "age": [
            {
                "recipient": str(recipient),
                "enc": pyrage.encrypt(cipher.key, [recipient], armored=True).decode(),
            }
        ],
        "lastmodified": _MODIFIED,
        "mac": cipher.mac(tree),
        # Whatever a secret is called, its value is encrypted.
        "unencrypted_suffix": "_of_no_name_here",
        "version": _VERSION,
    }
    if format_ == "dotenv":
        flat = {f"sops_{name}": value for name, value in _flattened(metadata)}
        return "".join(f"{name}={_one_line(v)}\n" for name, v in {**encrypted, **flat}.items())
    if format_ == "ini":
        parts = [*encrypted.items(), ("sops", dict(_flattened(metadata)))]
        return "\n".join(_section(name, entries) for name, entries in parts)
    return json.dumps({**encrypted, "sops": metadata}, indent=2) + "\n"


class _Cipher:
    def __init__(self, key: bytes) -> None:
        self.key = key
        self._cipher = AESGCM(key)

    def tree(self, tree: Tree, path: tuple[str, ...] = ()) -> dict[str, Any]:
        return {
            name: self._value(value, ":".join((*path, name)) + ":")
            if isinstance(value, str)
            else self.tree(value, (*path, name))
            for name, value in tree.items()
        }

    def mac(self, tree: Tree) -> str:
        digest = (
            hashlib.sha512("".join(_leaves(tree)).encode(errors="surrogateescape"))
            .hexdigest()
            .upper()
        )
        return self._value(digest, _MODIFIED)

    def _value(self, text: str, additional: str) -> str:
        if not text:
            return ""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(
            nonce, text.encode(errors="surrogateescape"), additional.encode()
        )
        data, iv, tag = (
            base64.b64encode(part).decode()
            for part in (sealed[:-_TAG_BYTES], nonce, sealed[-_TAG_BYTES:])
        )
        return f"ENC[AES256_GCM,data:{data},iv:{iv},tag:{tag},type:str]"


def _leaves(tree: Tree) -> Iterator[str]:
    for value in tree.values():
        if isinstance(value, str):
            yield value
        else:
            yield from _leaves(value)


def _flattened(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name what is nested as sops does where a format knows no nesting (``stores/flatten.go``)."""
    for name, value in metadata.items():
        if isinstance(value, list):
            for number, entry in enumerate(value):
                for below, text in entry.items():
                    yield f"{name}__list_{number}__map_{below}", text
        else:
            yield name, value


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _section(name: str, entries: Mapping[str, str]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {_one_line(v)}\n" for key, v in entries.items())


def _parsed(text: str, format_: str) -> Any:
    if len(text) > _MOST_BYTES:
        raise ValueError("it is too large")
    if format_ in ("json", "binary"):
        return json.loads(text)
    if format_ == "dotenv":
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if odd := [line for line in lines if "=" not in line]:
            raise ValueError(f"a line without =: {odd[0][:40]}")
        return dict(line.split("=", 1) for line in lines)
    if format_ == "ini":
        parser = configparser.RawConfigParser(strict=False, default_section="\0")
        parser.optionxform = str  # type: ignore[assignment, method-assign] # names keep their case
        parser.read_file(io.StringIO(text))
        return {name: dict(parser.items(name)) for name in parser.sections()}
    return yaml.safe_load(text)


def _has_metadata(data: Mapping[str, Any], format_: str) -> bool:
    if format_ == "dotenv":
        return "sops_mac" in data
    return isinstance(data.get("sops"), dict) and "mac" in data["sops"]


def _length(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _length(below) for name, below in value.items()}
    found = _ENCRYPTED.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found[2] != "str":
        return None
    try:
        return len(base64.b64decode(found[1], validate=True))
    except (binascii.Error, ValueError):
        return None
