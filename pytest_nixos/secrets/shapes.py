"""Secrets that their own shape gives away: key blocks, tokens with a prefix or checksum, hashes of
passwords.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import tomllib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pytest_nixos.secrets.hit import Found
from pytest_nixos.secrets.names import NameClass
from pytest_nixos.secrets.values import Verdict, entropy, is_sample, judge_value

__all__ = ["by_shape", "key_blocks", "words_everywhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """One kind of secret, an entry of ``shapes.toml``.

    :param words: texts of which one has to be there: found much faster than a pattern.
    :param check: what else has to be true of what matched.
    :param random: entropy that it has at least, in bits a character.
    :param samples: whether what looks made up counts too.
    :param everywhere: whether it is looked for in packages too.
    """

    kind: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None
    random: float
    samples: bool
    everywhere: bool

    def holds(self, value: str) -> bool:
        """Whether what matched is a secret, as far as can be told without asking anybody."""
        if self.check is not None and not self.check(value):
            return False
        return entropy(value) >= self.random and (self.samples or not is_sample(value))


_OF_ANY_PREFIX = "token with a prefix"
# The rest of a unit's name, which everybody sees: systemd writes what it escapes as \x2d. NixOS names the units of
# WireGuard's peers by their public keys.
_OF_UNIT = re.compile(
    r"(?:\\x[0-9a-f]{2}|[\w.-])*\.(?:service|target|socket|timer|path|slice|scope|device|mount)(?!\w)"
)
#: A run of words as programs write them: each begins with a capital.
_CAMEL = re.compile(r"(?:[A-Z][a-z]{2,}){3}|[a-z]{9}|[A-Z]{9}|\d{8}")
#: So long a drawn value may hold such a run by chance.
_LONG = 64
# Keys stand in files with real line ends, and in JSON, Nix and shell texts with ``\n`` for them.
_BREAK = r"(?:\\r|\\n|\s|\\)"
_PRIVATE_KEY = re.compile(
    rf"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?P<body>{_BREAK}+[A-Za-z0-9+/=:,. \r\n"
    rf"\t\\()-]{{60,}})"
)
_STATIC_KEY = re.compile(rf"-----BEGIN OpenVPN Static key V1-----{_BREAK}+[0-9a-f]{{32}}")
_PUTTY_KEY = re.compile(
    r"PuTTY-User-Key-File-\d:.*?Private-Lines: \d+\r?\n[A-Za-z0-9+/=]{40,}", re.DOTALL
)
_ENCODED_KEY = re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]{60,}")
_SIGNED = re.compile(r"(?i)\bsig(?:s|nature|natures)?\b[\"']?\s*[:=\[]")


def key_blocks(text: str) -> Iterator[Found]:
    """Find private keys in PEM, PGP, OpenSSH, PuTTY and OpenVPN form, as they are or in base64."""
    for word, kind, pattern, holds in _BLOCKS:
        for match in pattern.finditer(text) if word in text else ():
            if holds(match):
                yield Found(start=match.start(), end=match.end(), kind=kind)


def by_shape(text: str, *, everywhere: bool = False) -> Iterator[Found]:
    """Find tokens with a prefix of their own, and hashes of passwords.

    :param everywhere: only what is looked for in packages too.
    """
    for shape in _shapes():
        if (everywhere and not shape.everywhere) or not any(word in text for word in shape.words):
            continue
        for match in shape.pattern.finditer(text):
            group = "value" if "value" in shape.pattern.groupindex else 0
            if shape.kind == _OF_ANY_PREFIX and _OF_UNIT.match(text, match.end()):
                continue
            if shape.holds(match[group]):
                yield Found(start=match.start(group), end=match.end(group), kind=shape.kind)
    if not everywhere:
        yield from _signing_keys(text)


def words_everywhere() -> tuple[bytes, ...]:
    """Return the texts of which one is in every file of a package with a secret that is looked for
    there.
    """
    words = (word for shape in _shapes() if shape.everywhere for word in shape.words)
    return (b"PRIVATE KEY", *(word.encode() for word in words))


def _decoded(text: str) -> str:
    text = text.rstrip("=")
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4)).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""


def _github_sum(token: str) -> bool:
    """Whether the last six characters are the checksum of the rest: CRC32 in base 62.

    Source: github.blog, "Behind GitHub's new authentication token formats". A wrong sum is told
    nevertheless
    if the token looks random: a mistyped token is still most of one.
    """
    body, wanted = token[4:-6], token[-6:]
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number, found = zlib.crc32(body.encode()), ""
    while number:
        number, rest = divmod(number, 62)
        found = digits[rest] + found
    return found.rjust(6, "0") == wanted or entropy(token[4:]) > 3.5


def _nats_seed(seed: str) -> bool:
    """Whether it decodes as a seed of NATS: base32, a prefix byte for seeds, and a CRC16 at its
    end.
    """
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        return False
    return (
        len(raw) == 36
        and raw[0] & 0xF8 == 0x90
        and _crc16(raw[:-2]) == int.from_bytes(raw[-2:], "little")
    )


def _crc16(data: bytes) -> int:
    return binascii.crc_hqx(data, 0)


def _login_token(token: str) -> bool:
    """Whether a JSON web token lets somebody in; NATS's signed names of operators, accounts and
    users do not.
    """
    head, claims = (_json(part) for part in token.split(".")[:2])
    if not isinstance(head, dict) or not isinstance(claims, dict) or "alg" not in head:
        return False
    if not str(head["alg"]).startswith("ed25519"):
        return True
    nats = claims.get("nats")
    return isinstance(nats, dict) and nats.get("bearer_token") is True


def _mixed(value: str) -> bool:
    """Whether a value looks drawn, not written: letters of either case with several digits among
    them, and no word.
    """
    body = re.sub(r"[-_.]", "", value)
    kinds = (r"[a-z]", r"[A-Z]", r"[0-9]")
    written = len(body) < _LONG and _CAMEL.search(body) is not None
    return all(len(re.findall(kind, body)) >= 2 for kind in kinds) and not written


def _base36(value: str) -> bool:
    """Whether small letters and digits stand as mixed as a drawn value has them."""
    digits = sum(character.isdigit() for character in value)
    return digits >= len(value) // 8 and not re.search(r"[a-z]{13}|\d{9}", value)


def _json(part: str) -> object:
    try:
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        return None


def _signing_keys(text: str) -> Iterator[Found]:
    """Find keys that sign a binary cache: a name and 64 bytes. A signature has that shape too."""
    if "==" not in text:
        return
    for match in re.finditer(
        r"(?<![\w/+.])[\w.-]+:(?P<value>[A-Za-z0-9+/]{86}==)(?![\w+/=])", text
    ):
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.end()]
        if not _SIGNED.search(line) and entropy(match["value"]) > 4:
            yield Found(
                start=match.start("value"), end=match.end("value"), kind="signing key of Nix"
            )


#: A text that has to be there, what it is, its form, and what else has to be true.
_BLOCKS: tuple[tuple[str, str, re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
    ("PRIVATE KEY", "private key", _PRIVATE_KEY, lambda match: len(set(match["body"])) > 12),
    ("OpenVPN Static key", "OpenVPN static key", _STATIC_KEY, lambda _: True),
    ("PuTTY-User-Key-File", "private key (PuTTY)", _PUTTY_KEY, lambda _: True),
    (
        "LS0tLS1CRUdJTi",
        "private key in base64",
        _ENCODED_KEY,
        lambda match: "PRIVATE KEY" in _decoded(match[0]),
    ),
)
_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "github-sum": _github_sum,
    "nats-seed": _nats_seed,
    "login-token": _login_token,
    "mixed": _mixed,
    "base36": _base36,
    "literal": lambda value: judge_value(value, NameClass.PASSWORD) is Verdict.SECRET,
}


@cache
def _shapes() -> tuple[_Shape, ...]:
    text = resources.files(__package__).joinpath("shapes.toml").read_text(encoding="utf-8")
    return tuple(
        _Shape(
            kind=entry["kind"],
            words=tuple(entry["words"].split()),
            pattern=re.compile(entry["pattern"]),
            check=_CHECKS[entry["check"]] if "check" in entry else None,
            random=entry.get("random", 0.0),
            samples=entry.get("samples", False),
            everywhere=entry.get("everywhere", False),
        )
        for entry in tomllib.loads(text)["shape"]
    )
