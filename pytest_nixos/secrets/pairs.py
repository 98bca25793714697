"""Values beside a name: ``password = x`` in all the ways in which configuration files write that."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_nixos.secrets.hit import Found
from pytest_nixos.secrets.names import NAME_HINT, NameClass, name_class
from pytest_nixos.secrets.values import Verdict, entropy, judge_value

__all__ = ["by_name"]

_KEY = r"(?P<key>[A-Za-z_][\w.-]{0,80}|[A-Za-z_][\w]*(?: [A-Za-z]\w*){1,2})"
# A quote that is escaped stands in JSON inside of a shell text; two single quotes are Nix's long text.
_QUOTED = (
    r"(?:(?P<q>\\?\"|''|\\?'|`)(?P<quoted>(?:(?!(?P=q)).)*?)(?P=q)"
    r"|[bru]\"(?P<raw>[^\"]*)\")"
)
#: A name at the start of its line (after export, a dash, ``Environment=``, a comment's sign), and the rest of the line.
_LINE = re.compile(
    r"""^(?P<lead>\s*(?:(?:\#+|//+|;+|--|\*)\s*)?(?:(?:export|set|setenv|declare|local|readonly|let|const|var|final|private|static
    |my|our|val|-|ENV|ARG)\s+(?:-\w\s+)?)*(?:(?:Default|Pass)?Environment=)?[$@:]?)
    (?P<kq>["']?)(?P<key>[A-Za-z_][\w./-]{0,80}(?:\ [A-Za-z]\w*){0,2})(?P=kq)\]?(?:\[\])?\s*
    (?P<sep>=>|:=|\?=|\+=|=|:)\s*(?P<value>\S.*)$""",
    re.VERBOSE,
)
#: Anywhere on a line, with a value in quotes.
_ANYWHERE = re.compile(
    rf"(?<![\w-])(?P<kq>\\?[\"']?){_KEY}(?P=kq)\]?\s{{0,8}}(?P<sep>=>|:=|\?=|=|:)\s{{0,8}}{_QUOTED}"
)
#: Anywhere on a line, with a value as long as it runs.
_BARE = re.compile(
    r"(?<![\w$./@-])(?P<key>[A-Za-z_][\w.-]{0,80})(?P<sep>=|:\s)(?P<bare>[^\s,;&|<>\"'`(){}\[\]\\]+)(?P<next>(?:\s+(?=\w))?.?)"
)
_FLAG = re.compile(
    r"(?<!\S)[\"']?--?(?P<key>[A-Za-z][\w-]{2,60})(?:=|\s+|[\"'],?\s+[\"'])(?:(?P<q>[\"'])(?P<quoted>[^\"']*)(?P=q)|(?P<bare>[^\s\"'-][^\s\"']*))"
)
#: ``password "x"`` without a sign between; ``requirepass x`` where no program writes anything else.
_BLANK = re.compile(
    r"^\s*(?:[\w-]+\s+){0,3}?(?P<key>[A-Za-z_][\w.-]*)\s+(?P<q>[\"'])(?P<quoted>[^\"']+)(?P=q)"
)
_BLANK_BARE = re.compile(
    r"^\s*(?P<key>requirepass|masterauth|bindpw|rootpw|rootbindpw|rootmodpw|sshpass|wpa_passphrase|insecure-password)\s+(?P<bare>\S+)\s*$"
)
_ELEMENT = re.compile(
    r"<(?P<key>[A-Za-z][\w.-]*)(?:\s[^<>]*)?>\s*(?P<quoted>[^<>\s][^<>]*?)\s*</(?P=key)>"
)
_ATTRIBUTE = re.compile(
    r"(?:name|key|id)=(?P<aq>[\"'])(?P<key>[\w.-]+)(?P=aq)[^<>]*?(?:\bvalue=(?P<q>[\"'])(?P<quoted>.*?)(?P=q)|>\s*(?P<bare>[^<>\s]+)\s*<)"
)
_DEFINE = re.compile(
    r"\b(?:define|putenv|setenv|set_secret|config_set)\s*\(\s*[\"'](?P<key>\w+)[\"']\s*,\s*(?P<q>[\"'])(?P<quoted>.*?)(?P=q)"
)
_SQL = re.compile(
    r"(?i)\b(?P<key>password|identified\s+(?:with\s+\w+\s+)?by(?:\s+password)?)\s+(?P<q>')(?P<quoted>[^']+)(?P=q)"
)
_COMMENT = re.compile(r"^\s*(?:#|//(?![\w.-]+/)|;|--\s|\*|<!--|%|rem\s|dnl\s)")
_CODE_FILE = re.compile(
    r"\.(?:nix|py|pl|pm|js|mjs|cjs|ts|go|rs|c|h|cc|cpp|java|rb|lua|el|hs|scm|vim|awk|jq)$"
)
_SHEBANG = re.compile(r"\A#!.*?\b(?:python|perl|node|ruby|lua|awk)")
_TRAILING = re.compile(r"\s+(?:#|;|//).*$|[,;]\s*$")
_IDENTIFIER = re.compile(r"^[A-Za-z_]\w*$")


def by_name(text: str, *, name: str = "") -> Iterator[tuple[Found, Verdict]]:
    """Find values beside names of secrets, and tell what each value is: a secret or a placeholder.

    :param name: the file's name: in a program, what is not in quotes is a variable and no value.
    """
    code = bool(_CODE_FILE.search(name) or _SHEBANG.match(text))
    start = 0
    for line in text.splitlines(keepends=True):
        if NAME_HINT.search(line):
            yield from _of_line(line.rstrip("\r\n"), start, code=code)
        start += len(line)


def _of_line(line: str, start: int, *, code: bool) -> Iterator[tuple[Found, Verdict]]:
    comment = bool(_COMMENT.match(line))
    for key, value, at in _pairs(line, code=code):
        kind = name_class(key)
        if kind is None:
            continue
        verdict = judge_value(value, kind, name=key.rpartition(".")[2])
        if verdict is Verdict.NO_SECRET or (comment and not _certain(value)):
            continue
        found = Found(
            start=start + at, end=start + at + len(value), kind=_described(kind, key), known=False
        )
        yield found, verdict


def _described(kind: NameClass, key: str) -> str:
    return (
        f"{kind.value} at the name {key.rpartition('.')[2] if kind is not NameClass.KEY else key}"
    )


def _certain(value: str) -> bool:
    """Whether a value in a comment is more than an example of one."""
    return len(value) >= 16 and entropy(value) >= 3.6 and bool(re.search(r"\d", value))


def _pairs(line: str, *, code: bool) -> Iterator[tuple[str, str, int]]:
    """Yield name, value and the value's place."""
    whole = _LINE.match(line)
    if whole is not None:
        yield from _whole_line(whole, code=code)
    for pattern in (_ANYWHERE, _FLAG, _BLANK, _BLANK_BARE, _ELEMENT, _ATTRIBUTE, _DEFINE, _SQL):
        for match in pattern.finditer(line):
            groups = match.groupdict()
            for group in ("quoted", "raw", "bare"):
                if groups.get(group):
                    key = "password" if pattern is _SQL else match["key"]
                    yield key, match[group], match.start(group)
    if not code:
        for match in _BARE.finditer(line):
            value = match["bare"]
            # A colon, a word and more words are a sentence.
            prose = match["sep"] != "=" and match["next"][:1].isspace()
            opens = match["next"] in {"(", "[", "{"}
            if not (prose or opens or value.startswith(("//", "="))):
                yield match["key"], value, match.start("bare")


def _whole_line(match: re.Match[str], *, code: bool) -> Iterator[tuple[str, str, int]]:
    """Take the rest of a line as the value, as INI, YAML and environment files do."""
    value = match["value"]
    if value[0] in "\"'`" or value.startswith(('b"', 'r"', 'u"', '\\"')):
        return  # the pattern for values in quotes has it
    value = _TRAILING.sub("", value).rstrip()
    if code or not value:
        return
    words = value.split()
    if len(words) == 1:
        # Without quotes and with a semicolon it is Nix or another program: a variable.
        if match["value"].rstrip().endswith(";") and _IDENTIFIER.match(value):
            return
        yield match["key"], value, match.start("value")
    elif (
        match["sep"] == "=" and len(words) <= 6 and all(re.match(r"^[\w!?.'-]+$", w) for w in words)
    ):
        if name_class(match["key"]) is NameClass.PASSWORD:
            yield match["key"], value, match.start("value")
