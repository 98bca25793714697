"""A labelled corpus: lines of configuration files, each with a secret in it or without.

A file of ``corpus/`` holds many small files. ``=== NAME`` begins one; of every other line the first
character is its
label and two characters later its text begins: ``+`` a secret, ``-`` none, a blank: not counted
(the body of a key).
What stands in ``⟦ ⟧`` is made up anew from a fixed seed, so that no key is committed; an empty
``⟦⟧`` parts the prefix
of a token, so that no forge takes the corpus itself for a leak.
"""

from __future__ import annotations

import base64
import binascii
import json
import random
import re
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
_ALNUM = string.ascii_letters + string.digits
_CRYPT = "./" + string.digits + string.ascii_letters


@dataclass(frozen=True, slots=True)
class Case:
    """One file of the corpus: which of its lines hold a secret, and which are counted."""

    name: str
    text: str
    secret: frozenset[int]
    counted: frozenset[int]


def read(file: str) -> list[Case]:
    """Read a file of the corpus."""
    cases: list[Case] = []
    name, lines = "", list[str]()
    for line in [*(FOLDER / file).read_text(encoding="utf-8").splitlines(), "=== "]:
        if line.startswith("=== "):
            if lines:
                cases.append(_case(name, lines))
            name, lines = line[4:].strip(), []
        elif line:
            assert line[0] in "+- " and line[1:2] in ("", " "), f"{file}: {line!r}"
            lines.append(line)
    return cases


def _case(name: str, lines: list[str]) -> Case:
    source = random.Random(name)
    text = "\n".join(_filled(line[2:], source) for line in lines) + "\n"
    labels = {n: line[0] for n, line in enumerate(lines, start=1)}
    return Case(
        name=name,
        text=text,
        secret=frozenset(n for n, label in labels.items() if label == "+"),
        counted=frozenset(n for n, label in labels.items() if label != " "),
    )


def _filled(line: str, source: random.Random) -> str:
    return re.sub(r"⟦(.*?)⟧", lambda m: _made_up(m[1], source), line)


def _of(alphabet: str, length: int, source: random.Random) -> str:
    return "".join(source.choice(alphabet) for _ in range(length))


_ALPHABETS = {
    "hex": "0123456789abcdef",
    "HEX": "0123456789ABCDEF",
    "alnum": _ALNUM,
    "lower": string.ascii_lowercase + string.digits,
    "upper": string.ascii_uppercase + "234567",
    "digits": "123456789",
    "crypt": _CRYPT,
    "nix32": "0123456789abcdfghijklmnpqrsvwxyz",
}


def _made_up(what: str, source: random.Random) -> str:
    kind, _, size = what.partition(":")
    if kind in _ALPHABETS:
        return _of(_ALPHABETS[kind], int(size), source)
    made: dict[str, Callable[[], str]] = {
        "": lambda: "",
        "b64": lambda: base64.b64encode(source.randbytes(int(size))).decode(),
        "b64url": lambda: _url_safe(source.randbytes(int(size))),
        "encode": lambda: base64.b64encode(size.encode()).decode(),
        "uuid": lambda: "-".join(_of(_ALPHABETS["hex"], n, source) for n in (8, 4, 4, 4, 12)),
        "github": lambda: _github(source),
        "nats": lambda: nats_seed(size, source),
        "jwt": lambda: _jwt(json.loads(size.replace("'", '"') or '{"alg": "HS256"}'), source),
    }
    return made[kind]()


def _url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _github(source: random.Random) -> str:
    body = _of(_ALNUM, 30, source)
    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    number, text = zlib.crc32(body.encode()), ""
    while number:
        number, rest = divmod(number, 62)
        text = digits[rest] + text
    return body + text.rjust(6, "0")


def nats_seed(kind: str, source: random.Random) -> str:
    """Make a seed as NATS's nkeys does: two prefix bytes, 32 random ones, CRC16."""
    prefix = {"U": 20 << 3, "A": 0, "O": 14 << 3}[kind]
    raw = bytes([(18 << 3) | (prefix >> 5), (prefix & 31) << 3]) + source.randbytes(32)
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw).decode().rstrip("=")


def _jwt(head: dict[str, object], source: random.Random) -> str:
    claims = head.pop("claims", {"sub": "ada", "iat": 1700000000})
    parts = [json.dumps({"typ": "JWT", **head}).encode(), json.dumps(claims).encode()]
    return ".".join(_url_safe(part) for part in (*parts, source.randbytes(48)))
