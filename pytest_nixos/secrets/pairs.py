"""Values beside a name: ``password = x`` in all the ways in which files write that."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_nixos.secrets.hit import Found
from pytest_nixos.secrets.names import NameClass, may_name, name_class, names_key_of_signer
from pytest_nixos.secrets.values import Verdict, entropy, judge_value

__all__ = ["by_name"]

#: Name, value and the value's place in its line.
Pair = tuple[str, str, int]

_KEY = r"(?P<key>[A-Za-z_][\w.-]{0,80}|[A-Za-z_][\w]*(?: [A-Za-z]\w*){1,2})"
# A quote that is escaped stands in JSON inside of a shell text; two single quotes are Nix's long
# text.
_QUOTED = (
    r"(?:(?P<q>\\?\"|''|\\?'|`)(?P<quoted>(?:(?!(?P=q)).)*?)(?P=q)"
    r"|[bru]\"(?P<raw>[^\"]*)\")"
)
#: A name at the start of its line (after export, a dash, ``Environment=``, a comment's sign), and
#: the rest of the line.
_LINE = re.compile(
    r"""^(?P<lead>\s*(?:(?:\#+|//+|;+|--|\*)\s*)?
    (?:(?:export|set|setenv|declare|local|readonly|let|const|var|final|private|static
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
    r"(?<![\w$./@-])(?P<key>[A-Za-z_][\w.-]{0,80})(?P<sep>=|:\s)(?P<bare>[^\s,;&|"
    r"<>\"'`(){}\[\]\\]+)(?=(?P<next>(?:\s+(?=\w))?.?))"
)
#: Behind more than one blank stands what a program's help says of it.
_FLAG = re.compile(
    r"(?<!\S)[\"']?--?(?P<key>[A-Za-z][\w-]{2,60})(?:=|\s(?!\s)|"
    r"[\"'],?\s+[\"'])(?:(?P<q>[\"'])(?P<quoted>[^\"']*)(?P=q)|(?P<bare>[^\s\"'-][^\s\"']*))"
)
#: ``password "x"`` without a sign between; ``requirepass x`` where no program writes anything else.
_BLANK = re.compile(
    r"^\s*(?:[\w-]+\s+){0,3}?(?P<key>[A-Za-z_][\w.-]*)\s+(?P<q>[\"'])(?P<quoted>[^\"']+)(?P=q)"
)
_BLANK_BARE = re.compile(
    r"^\s*(?P<key>requirepass|masterauth|bindpw|rootpw|rootbindpw|rootmodpw|sshpass|wpa_passphrase|"
    r"insecure-password)\s+(?P<bare>\S+)\s*$"
)
_ELEMENT = re.compile(
    r"<(?P<key>[A-Za-z][\w.-]*)(?:\s[^<>]*)?>\s*(?P<quoted>[^<>\s][^<>]*?)\s*</(?P=key)>"
    # A property list names what follows so.
    r"(?!\s*<(?:string|integer|real|true|false|array|dict|date|data)\b)"
)
_ATTRIBUTE = re.compile(
    r"(?:name|key|id)=(?P<aq>[\"'])(?P<key>[\w.-]+)(?P=aq)[^<>]*?(?:\bvalue=(?P<q>[\"'])(?P<quoted>"
    r".*?)(?P=q)|>\s*(?P<bare>[^<>\s]+)\s*<)"
)
_DEFINE = re.compile(
    r"\b(?:define|putenv|setenv|set_secret|"
    r"config_set)\s*\(\s*[\"'](?P<key>\w+)[\"']\s*,\s*(?P<q>[\"'])(?P<quoted>.*?)(?P=q)"
)
_SQL = re.compile(
    r"(?i)\b(?P<key>password|"
    r"identified\s+(?:with\s+\w+\s+)?by(?:\s+password)?)\s+(?P<q>')(?P<quoted>[^']+)(?P=q)"
)
#: Bytes of a key as a list of numbers.
_NUMBERS = re.compile(
    r"(?<![\w.-])(?P<key>[A-Za-z_][\w.-]{0,80})[\"']?\s*[=:]\s*"
    r"(?P<list>\[(?:\s*(?:0x[0-9a-fA-F]{1,2}|\d{1,3})\s*,){7,}[^\]]*\])"
)
#: ``user "ada" password "x"`` in the middle of a line.
_WORD_AND_QUOTED = re.compile(
    r"(?<![\w\"'])(?P<key>password|passwd|passphrase|secret)\s+"
    r"(?P<q>[\"'])(?P<quoted>[^\"'\s]+)(?P=q)"
)
_MARKED = (
    *(_ANYWHERE, _FLAG, _BLANK, _WORD_AND_QUOTED, _BLANK_BARE, _ELEMENT, _ATTRIBUTE, _DEFINE, _SQL),
)
_COMMENT = re.compile(r"^\s*(?:#|//(?![\w.-]+/)|;|--\s|\*|<!--|%|rem\s|dnl\s)")
_CODE_FILE = re.compile(
    r"\.(?:nix|py|pl|pm|js|mjs|cjs|ts|go|rs|c|h|cc|cpp|java|rb|lua|el|hs|scm|vim|awk|jq)$"
)
_SHEBANG = re.compile(r"\A#!.*?\b(?:python|perl|node|ruby|lua|awk)")
_TRAILING = re.compile(r"\s+(?:#|;|//).*$|[,;]\s*$")
_IDENTIFIER = re.compile(r"^[A-Za-z_]\w*$")
# home-manager's `programs.git.signing = { key = "..."; }`.
_SIGNING = re.compile(r"\bsigning\s*=\s*\{(?:[^{}]|\$\{[^{}]*\})*\}")


def by_name(text: str, *, name: str = "") -> Iterator[tuple[Found, Verdict]]:
    """Find values beside names of secrets, and tell what each value is: a secret or a placeholder.

    :param name: the file's name: in a program, what is not in quotes is a variable and no value.
    """
    code = bool(_CODE_FILE.search(name) or _SHEBANG.match(text))
    if not may_name(text):
        return
    yield from _below(text)
    signing = [match.span() for match in _SIGNING.finditer(text)]
    start = 0
    for line in text.splitlines(keepends=True):
        if may_name(line):
            outer = "signing." if any(begin < start < end for begin, end in signing) else ""
            yield from _of_line(line.rstrip("\r\n"), start, code=code, outer=outer)
        start += len(line)


#: A group of secrets: ``tokens = { agent = "..."; }``, ``basicAuth: {"ada": "..."}``, and its like
#: in YAML.
_GROUP = re.compile(
    r"(?<!\w)(?P<key>\w{0,40}?(?:tokens|passwords|secrets|credentials|basicAuth|basic_auth_users|"
    r"api_?keys))"
    r"[\"']?\s*[:=]\s*\{(?P<members>[^{}]{1,4000})\}",
    re.IGNORECASE,
)
_MEMBER = re.compile(
    r"(?<![\w.-])(?!(?:owner|group|mode|name|description|display_?name|file|path|format|type)\b)"
    r"[\w.-]{1,80}[\"']?\s*[:=]\s*(?P<q>[\"'])(?P<value>[^\"'\n]{4,})(?P=q)"
)
_YAML_GROUP = re.compile(
    r"(?m)^(?P<indent>[ ]*)(?:- )?\w*(?P<key>tokens|passwords|secrets|credentials|api_?keys):[ ]*\n"
    r"(?P<members>(?:(?P=indent)[ ]+[^\n]*\n?){1,60})"
)
_YAML_MEMBER = re.compile(
    r"(?m)^[ ]+[\w.-]+:[ ]+(?P<q>[\"']?)(?P<value>[^\s\"'{}\[\]|>&*!#][^\s\"']*)(?P=q)[ ]*$"
)

#: ``password: |`` in YAML, with one line below that is one word.
_YAML_BLOCK = re.compile(
    r"(?m)^(?P<indent>[ ]*)(?:-[ ])?(?P<key>[A-Za-z_][\w.-]{0,80}):[ ]*[|>][-+\d]{0,2}[ ]*\n"
    r"(?P=indent)[ ]+(?P<value>\S+)[ ]*(?:\n|\Z)(?!(?P=indent)[ ]+\S)"
)


def _below(text: str) -> Iterator[tuple[Found, Verdict]]:
    """Find values below a name that says that secrets follow; their own names say who uses them."""
    for match in _YAML_BLOCK.finditer(text):
        of_name = name_class(match["key"])
        if of_name is None or match["value"].startswith("-----BEGIN"):
            continue
        verdict = judge_value(match["value"], of_name)
        if verdict is not Verdict.NO_SECRET:
            at, end = match.span("value")
            told = f"{of_name.value} below the name {match['key']}"
            yield Found(start=at, end=end, kind=told, known=False), verdict
    for group, member in ((_GROUP, _MEMBER), (_YAML_GROUP, _YAML_MEMBER)):
        for outer in group.finditer(text):
            of_people = re.search(r"(?i)passwords|basic", outer["key"])
            kind = NameClass.PASSWORD if of_people else NameClass.TOKEN
            for match in member.finditer(text, outer.start("members"), outer.end("members")):
                verdict = judge_value(match["value"], kind)
                if verdict is not Verdict.NO_SECRET:
                    at, end = match.span("value")
                    told = f"{kind.value} below the name {outer['key']}"
                    yield Found(start=at, end=end, kind=told, known=False), verdict


def _of_line(line: str, start: int, *, code: bool, outer: str) -> Iterator[tuple[Found, Verdict]]:
    comment = bool(_COMMENT.match(line))
    for key, value, at in _pairs(line, code=code):
        kind = None if key.startswith("alias ") else name_class(key)
        if kind is None or names_key_of_signer(f"{outer}{key}", value):
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


def _pairs(line: str, *, code: bool) -> Iterator[Pair]:
    whole = _LINE.match(line)
    if whole is not None and not code:
        yield from _whole_line(whole)
    for pattern in _MARKED:
        for match in pattern.finditer(line):
            groups = match.groupdict()
            for group in ("quoted", "raw", "bare"):
                if groups.get(group) and not _is_other_text(match, line):
                    key = "password" if pattern is _SQL else match["key"]
                    yield key, match[group], match.start(group)
    for match in _NUMBERS.finditer(line):
        yield match["key"], bytes(_numbers(match["list"])).hex(), match.start("list")
    for match in _BARE.finditer(line):
        if _is_value(match, line, code=code):
            yield match["key"], match["bare"], match.start("bare")


def _is_other_text(match: re.Match[str], line: str) -> bool:
    """Whether what a pattern takes for a name and a value is something else: a variable of psql
    (``PASSWORD :'x'``), a text that ends behind its sign (``"password=" + x``), what a shell's
    function ``pass`` tells.
    """
    if match.re is _BLANK:
        return match["key"] == "pass" and " " in match["quoted"]
    if match.re is not _ANYWHERE:
        return False
    at, behind = match.start("sep"), match.end("sep")
    ends = not match["kq"] and line[: match.start()].endswith(("'", '"'))
    return (line[at - 1] == " " and line[at:].startswith(":'")) or (
        ends and line[match.start() - 1] == line[behind : behind + 1]
    )


def _numbers(text: str) -> list[int]:
    return [int(number, 0) & 255 for number in re.findall(r"0x[0-9a-fA-F]+|[1-9]\d*|0", text)]


def _is_value(match: re.Match[str], line: str, *, code: bool) -> bool:
    """Whether what follows a name without quotes is a value rather than a sentence, a call or a
    variable.
    """
    start, value = match.start(), match["bare"]
    before = line[start - 1 : start]
    # A colon, a word and more words are a sentence; what follows a question mark is a part of an
    # address.
    prose = match["sep"] != "=" and match["next"][:1].isspace()
    called = match["next"] in {"(", "[", "{"} or value.startswith(("//", "="))
    query = before in {"?", "&"} and name_class(match["key"]) is NameClass.KEY
    if prose or called or query:
        return False
    # In a program it is a text of its own, as a variable for a process or an option of a mount.
    return (
        not code or before in {'"', "'"} or (before == "," and line.count('"', 0, start) % 2 == 1)
    )


def _whole_line(match: re.Match[str]) -> Iterator[Pair]:
    """Take the rest of a line as the value, as INI, YAML and environment files do."""
    value = match["value"]
    if value[0] in "\"'`" or value.startswith(('b"', 'r"', 'u"', '\\"')):
        return  # the pattern for values in quotes has it
    value = _TRAILING.sub("", value).rstrip()
    words = value.split()
    # Without quotes and with a semicolon it is Nix or another program: a variable.
    variable = match["value"].rstrip().endswith(";") and _IDENTIFIER.match(value)
    sentence = (
        len(words) > 6
        or match["sep"] != "="
        or not all(re.match(r"^[\w!?.'-]+$", word) for word in words)
        or name_class(match["key"]) is not NameClass.PASSWORD
    )
    if words and not variable and (len(words) == 1 or not sentence):
        yield match["key"], value, match.start("value")
