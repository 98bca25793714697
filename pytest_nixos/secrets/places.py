"""Secrets whose place gives them away: in an address, a header, a command line, or a file with a
form of its own.
"""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pytest_nixos.secrets.hit import Found
from pytest_nixos.secrets.names import NameClass
from pytest_nixos.secrets.values import Verdict, judge_value, looks_random

__all__ = ["by_place"]

_URL = re.compile(
    r"\b(?P<scheme>[a-z][a-z0-9+.-]{1,30})://(?P<user>[^\s:/?#@\"'<>\[\]{}|"
    r"\\]*):(?P<value>[^\s/?#@\"'<>|]+)@(?P<host>[^\s/?#\"'<>,;)]+)"
)
#: RFC 2606: names for documentation.
_DOCUMENTATION = re.compile(
    r"(?i)(?:^|\.)example\.(?:com|org|net)(?::\d+)?$|\.(?:example|invalid)(?::\d+)?$|^(?:host|"
    r"hostname|server|domain|example)(?::\w+)?$"
)
_HEADER = re.compile(
    r"(?i)\b(?P<name>(?:proxy-)?authorization|x-api-key|x-auth-token|x-vault-token|private-token|"
    r"x-access-token|api-key|"
    r"x-consul-token|x-plex-token)\b[\"']?\s*[:=,]?\s*[\"'(]*(?P<scheme>bearer|basic|token|splunk|"
    r"digest|apikey|bot)?\s+[\"']?(?P<value>[A-Za-z0-9._~+/=:-]{8,})"
)
_PLAIN_HEADER = re.compile(
    r"(?i)[\"'\s](?P<name>x-api-key|x-auth-token|x-vault-token|private-token|x-access-token|"
    r"x-consul-token|x-plex-token|api-key):\s*(?P<value>[A-Za-z0-9._~+/=-]{8,})"
)
_BEARER = re.compile(
    r"(?i)\b(?:bearer[ =:]+[\"']?(?P<value>[A-Za-z0-9._~+/=-]{16,})|"
    r"token (?P<other>[A-Za-z0-9_=-]{32,}))"
)
_NAME_OF_ONE = re.compile(r"(?i)^[a-z0-9]+(?:[-_][a-z0-9]+)*[-_](?:api[-_]key|token|secret)$")
_HEADER_HINT = re.compile(r"(?i)authorization|x-[a-z]+-(?:key|token)|-token|api-key|bearer|token ")
_NETRC = re.compile(
    r"(?m)\b(?:machine\s+\S+|default)\s(?:[^\n]|\n(?!\s*machine\b))*?\bpassword\s+(?P<value>\S+)"
)
_NETRC_LINE = re.compile(
    r"(?m)^\s*(?:machine\s+\S+|default)\s+(?:login|account|password)\b|^\s*machine\s+\S+\s*$"
)
_KUBE_SECRET = re.compile(r"(?m)^kind:\s*[\"']?Secret\b")
_PGPASS = re.compile(
    r"^[\w.*/-]+:(?:\*|\d{2,5}):[\w*.-]+:[\w*.@-]+:(?P<value>(?:[^:\s\\]|\\[:\\])+)$"
)
_DOCKER = re.compile(
    r"[\"']_?auth[\"']\s*:\s*[\"'](?P<value>[A-Za-z0-9+/]{8,}={0,2})[\"']|"
    r"^\s*(?://\S+:)?_auth\s*=\s*[\"']?(?P<npm>[A-Za-z0-9+/]{8,}={0,2})"
)
_KUBE_DATA = re.compile(r"(?m)^data:[ \t]*\n(?P<block>(?:[ \t]+[^\n]*\n?)+)")
_KUBE_VALUE = re.compile(
    r"(?m)^\s+(?P<key>[\w.-]+):\s*[\"']?(?P<value>[A-Za-z0-9+/]{4,}={0,2})[\"']?\s*$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """An entry of ``places.toml``."""

    kind: str
    pattern: re.Pattern[str]
    file: re.Pattern[str] | None
    words: tuple[str, ...]
    least: int

    def may_be_in(self, text: str, name: str) -> bool:
        if self.file is not None:
            return self.file.search(name) is not None
        return any(word in text for word in self.words)

    def matches(self, line: str) -> Iterator[re.Match[str]]:
        if self.file is None:
            yield from self.pattern.finditer(line)
        elif (match := self.pattern.match(line)) is not None:
            yield match


@cache
def _places() -> tuple[_Place, ...]:
    text = resources.files(__package__).joinpath("places.toml").read_text(encoding="utf-8")
    return tuple(
        _Place(
            kind=entry["kind"],
            pattern=re.compile(entry["pattern"]),
            file=re.compile(entry["file"]) if "file" in entry else None,
            words=tuple(entry.get("words", "").split()),
            least=entry.get("least", 0),
        )
        for entry in tomllib.loads(text)["place"]
    )


def by_place(text: str, *, name: str = "") -> Iterator[tuple[Found, Verdict]]:
    """Find secrets by where they stand, and tell of each whether it is one or a placeholder.

    :param name: the file's name: some forms (``chap-secrets``) are known by it only.
    """
    yield from _netrc(text)
    yield from _kubernetes(text)
    places = [place for place in _places() if place.may_be_in(text, name)]
    start = 0
    for line in text.splitlines(keepends=True):
        for found, verdict in _of_line(line.rstrip("\r\n"), places):
            at, end = start + found.start, start + found.end
            yield Found(start=at, end=end, kind=found.kind, known=False), verdict
        start += len(line)


def _judged(
    match: re.Match[str], kind: str, group: str = "value"
) -> Iterator[tuple[Found, Verdict]]:
    verdict = judge_value(match[group].rstrip("\"',;\\"), NameClass.PASSWORD)
    if verdict is not Verdict.NO_SECRET:
        found = Found(start=match.start(group), end=match.end(group), kind=kind, known=False)
        yield found, verdict


def _of_line(line: str, places: Sequence[_Place]) -> Iterator[tuple[Found, Verdict]]:
    if "://" in line and "@" in line:
        yield from _addresses(line)
    if _HEADER_HINT.search(line):
        for pattern in (_HEADER, _PLAIN_HEADER, _BEARER):
            for match in pattern.finditer(line):
                yield from _header(match)
    for place in places:
        for match in place.matches(line):
            if not place.least or looks_random(match["value"], least=place.least):
                yield from _judged(match, place.kind)
    entry = _PGPASS.match(line)
    if entry is not None and not re.match(r"^[0-9a-fA-F:]+$", line):
        yield from _judged(entry, "password of PostgreSQL")
    yield from _docker(line)


def _addresses(line: str) -> Iterator[tuple[Found, Verdict]]:
    for match in _URL.finditer(line):
        if not _DOCUMENTATION.search(match["host"]):
            for found, verdict in _judged(match, "password in an address"):
                # guest:guest is a program's own beginning, which everybody knows.
                known = match["user"] == match["value"]
                yield found, Verdict.PLACEHOLDER if known else verdict


def _docker(line: str) -> Iterator[tuple[Found, Verdict]]:
    for match in _DOCKER.finditer(line) if "auth" in line else ():
        group = "value" if match["value"] else "npm"
        if re.match(r"^[\x21-\x7e]+:[\x20-\x7e]+$", _decoded(match[group])):
            at, end = match.span(group)
            kind = "user and password in base64"
            yield Found(start=at, end=end, kind=kind, known=False), Verdict.SECRET


def _header(match: re.Match[str]) -> Iterator[tuple[Found, Verdict]]:
    groups = match.groupdict()
    group = "value" if groups["value"] else "other"
    value = match[group]
    if (groups.get("scheme") or "").lower() == "basic":
        if ":" in _decoded(value):
            yield from _judged(match, "user and password in a header")
    elif looks_random(value, least=16 if group == "other" else 8) and not _NAME_OF_ONE.match(value):
        yield from _judged(match, "token in a header", group)


def _netrc(text: str) -> Iterator[tuple[Found, Verdict]]:
    if _NETRC_LINE.search(text):
        for match in _NETRC.finditer(text):
            yield from _judged(match, "password in a netrc file")


def _kubernetes(text: str) -> Iterator[tuple[Found, Verdict]]:
    if not _KUBE_SECRET.search(text):
        return
    for block in _KUBE_DATA.finditer(text):
        for match in _KUBE_VALUE.finditer(text, block.start("block"), block.end("block")):
            public = match["key"].endswith((".crt", ".pub"))
            if not public and _decoded(match["value"]).isprintable():
                yield from _encoded(match)


def _encoded(match: re.Match[str]) -> Iterator[tuple[Found, Verdict]]:
    verdict = judge_value(_decoded(match["value"]), NameClass.PASSWORD)
    if verdict is not Verdict.NO_SECRET:
        yield (
            Found(
                start=match.start("value"),
                end=match.end("value"),
                kind="secret of Kubernetes",
                known=False,
            ),
            verdict,
        )


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
