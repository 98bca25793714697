"""Whether a value is a secret itself, or stands for one: a placeholder, a path, a reference, a
public thing.
"""

from __future__ import annotations

import base64
import enum
import json
import math
import re
import tomllib
from collections import Counter
from functools import cache
from importlib import resources

import msgspec

from pytest_nixos.secrets.names import NameClass, words_of

__all__ = [
    "Verdict",
    "entropy",
    "is_known_to_all",
    "is_sample",
    "judge_value",
    "looks_random",
    "names_elsewhere",
    "stands_for_none",
]


class Verdict(enum.Enum):
    """What a value is."""

    SECRET = "secret"  # noqa: S105 - the name of a verdict
    PLACEHOLDER = "placeholder"
    NO_SECRET = "no secret"  # noqa: S105


class _Lists(msgspec.Struct, frozen=True, kw_only=True):
    """What ``values.toml`` holds; it says what each is."""

    words: frozenset[str]
    placeholder_words: frozenset[str]
    published: frozenset[str]
    placeholder: re.Pattern[str]
    reference: re.Pattern[str]
    public: re.Pattern[str]


@cache
def _lists() -> _Lists:
    text = resources.files(__package__).joinpath("values.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    return _Lists(
        words=frozenset(data["words"].split()),
        placeholder_words=frozenset(data["placeholder-words"].split()),
        published=frozenset(data["published"]),
        placeholder=re.compile("|".join(data["placeholder"]), re.IGNORECASE),
        reference=re.compile("|".join(data["reference"])),
        public=re.compile(f"^(?:{'|'.join(data['public'])})"),
    )


#: Words about a secret.
_PROSE = re.compile(
    r"(?i)^(?:optional|leave|the|an?|your|enter|set|use|see|same|must|should|if|for)\b.*\s|"
    r"\s(?:password|passphrase|secret|token|key)\b|"
    r"^(?:password|passphrase|secret|token|key)\s"
)
_PATH = re.compile(r"^(?:~|\.{1,2})?/[\w.@%+~-]*(?:/[\w.@%+*~-]*)*$")
_URL = re.compile(r"^[a-z][a-z0-9+.-]*://\S*$", re.IGNORECASE)
_HASH_OF_CONTENT = re.compile(r"(?i)^(?:sha\d+|md5|blake\w*)[-:=]|^narHash")
_UUID = re.compile(r"(?i)^\{?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?$")
#: One in a longer name, as Grafana numbers the panels of a dashboard.
_WITH_UUID = re.compile(r"(?i)\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_VERSIONS = re.compile(r"^[\^~<>=]{1,2}\s?\d[\w.*-]*(?:\s*(?:\|\|)?\s*[\^~<>=]*\d[\w.*-]*)*$")
_FILE = re.compile(r"^[\w.-]+\.(?:pem|key|crt|cer|der|p12|pfx|jks|age|gpg|asc|pub)$")
_ADDRESS = re.compile(r"(?i)^(?=.*::|(?:[^:]+:){7})[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}$")
#: Nix's public key is 32 bytes, its secret one 64.
_KEY_OF_CACHE = re.compile(r"^[\w.-]+:[A-Za-z0-9+/]{43}=?$")
#: Where a key lies in a file of sops.
_KEY_PATH = re.compile(r"^[a-z][a-z0-9_-]*(?:/[a-z][a-z0-9_-]*)+$")
#: Of a board, as Klipper names it.
_BOARD_PIN = re.compile(r"(?i)^[\^~!]*(?:\w+:[\w.]+|P[A-K]\d{1,2}|gpio\d+|(?:ar|analog)\d+)$")
_JOINED_WORDS = re.compile(r"^[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)+$")
_PATTERN = re.compile(r"\\[dwsWDSb]|\.\*|\.\+|\[[a-zA-Z0-9]-[a-zA-Z0-9]|\(\?[:=!i]|\{\d+,\d*\}")
_CALL = re.compile(
    r"^[\w.$:]+\(|^\w+\[|^(?:new|await|lambda|function|fn|if|then|let|with|import|return)\b"
)
_CODE_CHARS = re.compile(r"^[-+*/<>=!&|(){}\[\],;:.?~^%#@$\\'\"` ]*$")
_DURATION = re.compile(
    r"(?i)^\d+(?:\.\d+)?\s*(?:ms|s|sec|m|min|h|d|w|y|(?:second|minute|hour|day|week|month|year)s?|k|kb|kib|m|mb|mib|g|gb|gib|%|bytes?)?$"
)
_IDENTIFIER = re.compile(r"^[a-zA-Z]+(?:[_-][a-zA-Z]+)*$")
_BASE64 = re.compile(r"^[A-Za-z0-9+/_=-]+$")
_HEX = re.compile(r"^[0-9a-fA-F]+$")
_HEADER = re.compile(r"^eyJ[\w-]{12,200}={0,2}$")
_WIREGUARD = re.compile(r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$")


def entropy(value: str) -> float:
    """Return Shannon's entropy of the characters of `value`, in bits a character."""
    counts = Counter(value)
    return (
        -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values()) if value else 0.0
    )


def is_sample(value: str) -> bool:
    """Whether something of a known shape was written as an example: ``AKIA...EXAMPLE``, a row of x
    or of 0.
    """
    body = value[4:]
    return bool(_lists().placeholder.search(value)) or len(set(body)) < min(
        6, max(2, len(body) // 4)
    )


def judge_value(value: str, kind: NameClass, *, name: str = "") -> Verdict:
    """Tell what the value beside a name of class `kind` is.

    :param name: the name itself: ``password = password`` says nothing.
    """
    value = value.strip()
    if kind is NameClass.HASH and re.match(r"^\$[\w-]+\$.*\$", value):
        return Verdict.SECRET
    if _stands_for_other(value, kind) or _names_one(value, name):
        return Verdict.NO_SECRET
    low = value.lower()
    if stands_for_none(value) or low == name.lower():
        return Verdict.PLACEHOLDER
    if kind is NameClass.HASH:
        strong = bool(_HEX.match(value)) and len(value) >= 32
        return Verdict.SECRET if strong or looks_random(value, least=20) else Verdict.NO_SECRET
    if kind is NameClass.PASSWORD:
        good = len(value) >= 4 and not (_DURATION.match(value) and len(value) < 4)
    elif kind is NameClass.TOKEN:
        good = len(value) >= 8 and (
            looks_random(value, least=8) or bool(_UUID.match(value)) or len(value) >= 16
        )
    else:
        good = looks_random(value, least=16) and not _WITH_UUID.search(value)
    return Verdict.SECRET if good else Verdict.NO_SECRET


def stands_for_none(value: str) -> bool:
    """Whether a value is there for want of one: a placeholder, or what its program publishes as its
    beginning.
    """
    return (
        is_known_to_all(value)
        or bool(_lists().placeholder.search(value))
        or _is_header_of_token(value)
    )


def is_known_to_all(value: str) -> bool:
    """Whether a value is, as a whole, a placeholder's word or what its program publishes."""
    return value in _lists().published or value.lower() in _lists().placeholder_words


def names_elsewhere(value: str) -> bool:
    """Whether a value says where the secret is: a path, a variable, a template that is filled in
    later.
    """
    return bool(_lists().reference.search(value) or _PATH.match(value))


def _is_header_of_token(value: str) -> bool:
    """Whether a value is the first part of a JSON web token (RFC 7515) alone: it says how such a
    token is signed, and manuals write it for one.
    """
    if not _HEADER.match(value):
        return False
    try:
        header = json.loads(base64.urlsafe_b64decode(f"{value.rstrip('=')}==="))
    except ValueError:
        return False
    return isinstance(header, dict) and "alg" in header and set(header) <= {"alg", "typ", "cty"}


def looks_random(value: str, *, least: int) -> bool:
    """Whether a text has no words: digits or capitals amid its letters, and many different
    characters.

    :param least: characters that it has to have; from 16 on it has to look like a key.
    """
    if len(value) < least or _IDENTIFIER.match(value):
        return False
    kinds = sum(bool(re.search(p, value)) for p in ("[a-z]", "[A-Z]", "[0-9]", "[^A-Za-z0-9]"))
    if least < 16:
        return kinds >= 2 and entropy(value) >= 2.3
    if not _BASE64.match(value):
        text = " " not in value and value[0] not in "{[(" and '"' not in value
        return kinds == 4 and text and entropy(value) >= 4.2
    return kinds >= 2 and entropy(value) >= (2.8 if _HEX.match(value) else 3.5)


def _names_one(value: str, name: str) -> bool:
    """Whether a value repeats its name, as a reference to a secret elsewhere does: ``SMTP_PASSWORD =
    "mail-smtp-password"``; or is a pin of a board.
    """
    words = words_of(name)
    if words[-1:] == ["pin"]:
        return bool(_BOARD_PIN.match(value))
    said = words_of(value)
    repeats = len(words) > 1 and len(said) > len(words) and said[-len(words) :] == words
    return repeats and bool(_JOINED_WORDS.match(value))


def _stands_for_other(value: str, kind: NameClass) -> bool:
    low = value.lower().rstrip("!")
    if len(value) < 4 or _CODE_CHARS.match(value):
        return True
    if low in _lists().words and low not in _lists().placeholder_words:
        return True
    if _WIREGUARD.match(value):
        return False
    if _PATH.match(value) and not _looks_like_key(value):
        return True
    if kind is NameClass.KEY and _KEY_OF_CACHE.match(value):
        return True
    if kind in (NameClass.KEY, NameClass.TOKEN) and _KEY_PATH.match(value):
        return True
    if _DURATION.match(value) and (kind is not NameClass.PASSWORD or not value.isdigit()):
        return True
    return bool(
        _lists().reference.search(value)
        or _URL.match(value)
        or _FILE.match(value)
        or _ADDRESS.match(value)
        or _VERSIONS.match(value)
        or _HASH_OF_CONTENT.match(value)
        or _lists().public.match(value)
        or _PATTERN.search(value)
        or _CALL.match(value)
        or _PROSE.search(value)
    )


def _looks_like_key(value: str) -> bool:
    """Whether what starts with a slash is base64 rather than a path: it has no words."""
    return (
        len(value) >= 24 and bool(re.match(r"^[A-Za-z0-9+/]+=*$", value)) and entropy(value) > 4.2
    )
