"""Look through one text for secrets of every kind."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from pytest_nixos.secrets.hit import Found, Hit, mark_of, masked
from pytest_nixos.secrets.pairs import by_name
from pytest_nixos.secrets.places import by_place
from pytest_nixos.secrets.shapes import by_shape, key_blocks
from pytest_nixos.secrets.values import Verdict, is_known_to_all

__all__ = ["find_known_secrets", "find_secrets", "rules_version", "secret_spans"]

_DOCUMENTATION = re.compile(
    r"(?i)\.(?:md|markdown|rst|adoc|html?|[1-8]|info|po|tex)$|(?:^|[/-])(?:README|LICENSE|COPYING|"
    r"CHANGELOG|NEWS)(?:$|[.])"
)
#: Whole files that are encrypted: nothing in them is readable.
_ENCRYPTED = re.compile(r"\A(?:age-encryption\.org/v1|\x00GITCRYPT)")
#: What is encrypted in a file that may hold more: an armoured block, lines of ansible-vault.
_ENCRYPTED_BLOCK = re.compile(
    r"^-----BEGIN (?P<kind>AGE ENCRYPTED FILE|PGP MESSAGE)-----$.*?^-----END (?P=kind)-----$"
    r"|^\$ANSIBLE_VAULT;[^\n]*\n(?:[0-9a-f]{2,80}(?:\n|\Z))*",
    re.MULTILINE | re.DOTALL,
)
#: What a SealedSecret of Kubernetes holds.
_SEALED = re.compile(
    r"^(?P<indent>[ ]*)encryptedData:[ ]*\n(?:(?P=indent)[ ]+[^\n]*(?:\n|\Z))+", re.MULTILINE
)
#: One value that sops encrypted, in a file whose other values may be plain.
_SOPS_VALUE = re.compile(r"ENC\[AES256_GCM,data:[^,\]\s]*,iv:[^,\]\s]*,tag:[^,\]\s]*,type:\w+\]")


def find_secrets(text: str, *, name: str = "") -> tuple[Hit, ...]:
    """Find secrets by shape, by the name beside them and by where they stand.

    :param name: the file's name; it tells programs, documentation and some formats apart.
    :return: in the order of lines; each secret once, under its most exact kind. Placeholders are
        marked as such.
    """
    return tuple(_hits(text, _apart(_found(text, name))))


def secret_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Return where the secrets of a text begin and end, in order.

    What looks like a placeholder is one of them, but for the words that all know (``changeme``): a
    real token may have ``0123456789`` in it.
    """
    return tuple(
        (each.start, each.end)
        for each, verdict in _apart(_found(text, ""))
        if verdict is Verdict.SECRET
        or (verdict is Verdict.PLACEHOLDER and not is_known_to_all(text[each.start : each.end]))
    )


@cache
def rules_version() -> str:
    """Return a digest of the rules: what was found with others is not taken from a cache."""
    digest = hashlib.sha256(metadata.version("detect-secrets").encode())
    for file in sorted(Path(__file__).parent.iterdir()):
        if file.suffix in {".py", ".toml"}:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def find_known_secrets(text: str) -> tuple[Hit, ...]:
    """Find keys and tokens that their shape gives away in the files of a package, where names say
    little.
    """
    found = (*key_blocks(text), *by_shape(text, everywhere=True))
    return tuple(_hits(text, _apart([(each, Verdict.SECRET) for each in found])))


def _found(text: str, name: str) -> list[tuple[Found, Verdict]]:
    if _ENCRYPTED.match(text):
        return []
    # As long as before, and with its lines: a hit tells where it stands.
    for encrypted in (_ENCRYPTED_BLOCK, _SEALED):
        text = encrypted.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    text = _SOPS_VALUE.sub(lambda value: f"ENC[{'.' * (len(value[0]) - 5)}]", text)
    found = [(each, Verdict.SECRET) for each in _known(text)]
    if not _DOCUMENTATION.search(name):
        found += [*by_place(text, name=name), *by_name(text, name=name)]
    return found


def _known(text: str) -> Iterator[Found]:
    # Loads detect-secrets and with it an HTTP client, 0.4 s that a run without a scan does not pay.
    from pytest_nixos.secrets.plugins import by_plugin

    yield from key_blocks(text)
    yield from by_shape(text)
    yield from by_plugin(text)


def _apart(found: Iterable[tuple[Found, Verdict]]) -> list[tuple[Found, Verdict]]:
    """Keep the first of those that overlap, and put them in order."""
    taken: list[tuple[int, int, Found, Verdict]] = []
    for number, (each, verdict) in enumerate(found):
        place = bisect_right(taken, (each.start, -1))
        before = taken[place - 1][2] if place else None
        after = taken[place][2] if place < len(taken) else None
        free = (before is None or before.end <= each.start) and (
            after is None or each.end <= after.start
        )
        if free and each.start < each.end:
            taken.insert(place, (each.start, number, each, verdict))
    return [(each, verdict) for _, _, each, verdict in taken]


def _hits(text: str, found: list[tuple[Found, Verdict]]) -> Iterator[Hit]:
    breaks = [at for at, character in enumerate(text) if character == "\n"] if found else []
    for each, verdict in found:
        secret = text[each.start : each.end]
        yield Hit(
            line=bisect_right(breaks, each.start - 1) + 1,
            kind=each.kind,
            shown=masked(secret),
            placeholder=verdict is Verdict.PLACEHOLDER,
            mark=mark_of(secret),
        )
