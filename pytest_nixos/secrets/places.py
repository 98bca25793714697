"""Secrets whose place gives them away: in an address, a header, a command line, or a file with a form of its own."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from pytest_nixos.secrets.hit import Found
from pytest_nixos.secrets.names import NameClass
from pytest_nixos.secrets.values import Verdict, judge_value, looks_random

__all__ = ["by_place"]

_URL = re.compile(
    r"\b(?P<scheme>[a-z][a-z0-9+.-]{1,30})://(?P<user>[^\s:/?#@\"'<>\[\]{}|\\]*):(?P<value>[^\s/?#@\"'<>|]+)@(?P<host>[^\s/?#\"'<>,;)]+)"
)
#: RFC 2606: names for documentation.
_DOCUMENTATION = re.compile(
    r"(?i)(?:^|\.)example\.(?:com|org|net)(?::\d+)?$|\.(?:example|invalid)(?::\d+)?$|^(?:host|hostname|server|domain|example)(?::\w+)?$"
)
_HEADER = re.compile(
    r"(?i)\b(?P<name>(?:proxy-)?authorization|x-api-key|x-auth-token|x-vault-token|private-token|x-access-token|api-key|"
    r"x-consul-token|x-plex-token)\b[\"']?\s*[:=,]?\s*[\"'(]*(?P<scheme>bearer|basic|token|splunk|digest|apikey|bot)?\s+[\"']?(?P<value>[A-Za-z0-9._~+/=:-]{8,})"
)
_PLAIN_HEADER = re.compile(
    r"(?i)[\"'\s](?P<name>x-api-key|x-auth-token|x-vault-token|private-token|x-access-token|x-consul-token|x-plex-token|api-key):\s*(?P<value>[A-Za-z0-9._~+/=-]{8,})"
)
_BEARER = re.compile(r"(?i)\bbearer[ =:]+[\"']?(?P<value>[A-Za-z0-9._~+/=-]{16,})")
_COMMANDS = (
    re.compile(r"\bcurl\b[^\n]*?\s(?:-u|--user)[ =][\"']?[\w.@%+-]+:(?P<value>[^\s\"']+)"),
    re.compile(r"\bsshpass\s+-p\s*[\"']?(?P<value>[^\s\"']+)"),
    re.compile(r"\s-pass(?:in|out)?\s+[\"']?pass:(?P<value>[^\s\"']+)"),
    re.compile(
        r"\b(?:mysql|mariadb|mysqladmin|mysqldump)\b[^\n|;]*?\s-p(?P<value>[^\s\"'-][^\s\"']*)"
    ),
    re.compile(r"\bredis-cli\b[^\n|;]*?\s-a\s+[\"']?(?P<value>[^\s\"']+)"),
    re.compile(r"\bsmbclient\b[^\n|;]*?\s-U\s*[\"']?[\w.\\-]+%(?P<value>[^\s\"']+)"),
    re.compile(
        r"\becho\s+(?:-n\s+)?[\"']?[a-z_][\w.-]*:(?P<value>[^\s\"']+)[\"']?\s*\|\s*(?:\S*/)?chpasswd"
    ),
    re.compile(
        r"\becho\s+(?:-n\s+)?[\"']?(?P<value>[^\s\"']+)[\"']?\s*\|\s*(?:\S*/)?(?:passwd\s+--stdin|cryptsetup|smbpasswd)"
    ),
    re.compile(r"\bchpasswd\s*<<<\s*[\"']?[a-z_][\w.-]*:(?P<value>[^\s\"']+)"),
    re.compile(r"\bhtpasswd\s+-\w*b\w*\s+\S+\s+\S+\s+[\"']?(?P<value>[^\s\"']+)"),
    re.compile(r"\b(?:user|username)\s*=\s*[\"']?[\w.@-]+:(?P<value>[^\s\"']+)[\"']?\s*$"),
    re.compile(r"^\s*stats\s+auth\s+[\w.-]+:(?P<value>\S+)"),
    re.compile(r"\binsecure-password\s+(?P<value>\S+)"),
    re.compile(r"^\s*user\s+[\w.-]+\s[^#]*?>(?P<value>\S{4,})"),
    re.compile(r"\bcreateUser\s+\S+\s+\w+\s+[\"']?(?P<value>[^\s\"']{8,})"),
    re.compile(r"(?:^|\s):\s*(?:PSK|XAUTH|EAP)\s+[\"'](?P<value>[^\"']+)[\"']"),
    re.compile(r"(?:^|\s)systemd\.set_credential(?:_binary)?=[\w.-]+:(?P<value>[^\s\"']+)"),
    re.compile(r"^\s*SetCredential=[\w.-]+:(?P<value>.+?)\s*$"),
)
_NETRC = re.compile(
    r"(?m)\b(?:machine\s+\S+|default)\s(?:[^\n]|\n(?!\s*machine\b))*?\bpassword\s+(?P<value>\S+)"
)
_PGPASS = re.compile(
    r"^[\w.*/-]+:(?:\*|\d{2,5}):[\w*.-]+:[\w*.@-]+:(?P<value>(?:[^:\s\\]|\\[:\\])+)$"
)
_DOCKER = re.compile(
    r"[\"']_?auth[\"']\s*:\s*[\"'](?P<value>[A-Za-z0-9+/]{8,}={0,2})[\"']|^\s*(?://\S+:)?_auth\s*=\s*[\"']?(?P<npm>[A-Za-z0-9+/]{8,}={0,2})"
)
_KUBE_DATA = re.compile(r"(?m)^data:[ \t]*\n(?P<block>(?:[ \t]+[^\n]*\n?)+)")
_KUBE_VALUE = re.compile(
    r"(?m)^\s+(?P<key>[\w.-]+):\s*[\"']?(?P<value>[A-Za-z0-9+/]{4,}={0,2})[\"']?\s*$"
)
_OF_FILE = (
    ("chap|pap-secrets", re.compile(r"^\s*[\"']?[\w.@*\\-]+[\"']?\s+[\"']?[\w.*-]+[\"']?\s+[\"']?(?P<value>[^\s\"'#]+)")),
    ("rsyncd|\\.secrets$", re.compile(r"^[\w.@-]+:(?P<value>[^\s:]{4,})$")),
    ("sasl|smtp|relay", re.compile(r"^\s*\[?[\w.@-]+\]?(?::\d+)?\s+[\w.@+-]+:(?P<value>\S{4,})$")),
    ("htdigest", re.compile(r"^[\w.-]+:[^:\n]+:(?P<value>[0-9a-f]{32})$")),
)  # fmt: skip


def by_place(text: str, *, name: str = "") -> Iterator[tuple[Found, Verdict]]:
    """Find secrets by where they stand, and tell of each whether it is one or a placeholder.

    :param name: the file's name: some forms (``chap-secrets``) are known by it only.
    """
    yield from _whole_text(text, name)
    start = 0
    for line in text.splitlines(keepends=True):
        for found, verdict in _of_line(line.rstrip("\r\n"), name):
            at = Found(
                start=start + found.start, end=start + found.end, kind=found.kind, known=False
            )
            yield at, verdict
        start += len(line)


def _judged(
    match: re.Match[str], kind: str, group: str = "value"
) -> Iterator[tuple[Found, Verdict]]:
    verdict = judge_value(match[group].rstrip("\"',;\\"), NameClass.PASSWORD)
    if verdict is not Verdict.NO_SECRET:
        found = Found(start=match.start(group), end=match.end(group), kind=kind, known=False)
        yield found, verdict


def _of_line(line: str, name: str) -> Iterator[tuple[Found, Verdict]]:
    if "://" in line and "@" in line:
        for match in _URL.finditer(line):
            if not _DOCUMENTATION.search(match["host"]):
                for found, verdict in _judged(match, "password in an address"):
                    # guest:guest is a program's own beginning, which everybody knows.
                    known = match["user"] == match["value"]
                    yield found, Verdict.PLACEHOLDER if known else verdict
    for match in (*_HEADER.finditer(line), *_PLAIN_HEADER.finditer(line), *_BEARER.finditer(line)):
        yield from _header(match)
    for pattern in _COMMANDS:
        for match in pattern.finditer(line):
            yield from _judged(match, "password in a command or setting")
    match = _PGPASS.match(line)
    if match is not None and not re.match(r"^[0-9a-fA-F:]+$", line):
        yield from _judged(match, "password of PostgreSQL")
    for match in _DOCKER.finditer(line):
        group = "value" if match["value"] else "npm"
        if re.match(r"^[\x21-\x7e]+:[\x20-\x7e]+$", _decoded(match[group])):
            yield (
                Found(
                    start=match.start(group),
                    end=match.end(group),
                    kind="user and password in base64",
                    known=False,
                ),
                Verdict.SECRET,
            )
    for pattern, form in _OF_FILE:
        if re.search(pattern, name) and (match := form.match(line)):
            yield from _judged(match, "password in a file of passwords")


def _header(match: re.Match[str]) -> Iterator[tuple[Found, Verdict]]:
    groups = match.groupdict()
    group = "value" if groups["value"] else "other"
    value = match[group]
    if (groups.get("scheme") or "").lower() == "basic":
        if ":" in _decoded(value):
            yield from _judged(match, "user and password in a header")
    elif looks_random(value, least=16 if group == "other" else 8):
        yield from _judged(match, "token in a header", group)


def _whole_text(text: str, name: str) -> Iterator[tuple[Found, Verdict]]:
    if re.search(
        r"(?m)^\s*(?:machine\s+\S+|default)\s+(?:login|account|password)\b|^\s*machine\s+\S+\s*$",
        text,
    ):
        for match in _NETRC.finditer(text):
            yield from _judged(match, "password in a netrc file")
    if re.search(r"(?m)^kind:\s*[\"']?Secret\b", text):
        for block in _KUBE_DATA.finditer(text):
            for match in _KUBE_VALUE.finditer(text, block.start("block"), block.end("block")):
                if _decoded(match["value"]).isprintable() and not match["key"].endswith(
                    (".crt", ".pub")
                ):
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
