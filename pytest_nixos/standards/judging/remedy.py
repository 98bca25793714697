"""The remedy of one finding on one host: the text for its release, filled from what was observed
there.
"""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from msgspec.structs import replace

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.expectation import NothingToCheckError, mismatch
from pytest_nixos.standards.control.model import Control, Expectation, Fill, Quantifier, Remedy
from pytest_nixos.standards.control.narrowed import narrowed
from pytest_nixos.standards.control.nixos_releases import load_releases
from pytest_nixos.standards.judging.applicability import outside_releases, unmet_requirement
from pytest_nixos.standards.judging.statements import Statement, statements

__all__ = ["ALWAYS_FILLED", "remedy_text", "sysctl_module"]

Json = Any
Values = Mapping[str, Sequence[str]]

#: A finding about a hundred units is mended one kind at a time: more than this is not read.
SHOWN = 8
_PLACEHOLDER = re.compile(r"<(every )?([a-z][a-z ]*)>")
#: What a guest says is untrusted: only text that means itself inside a Nix string is put into a
#: remedy.
_SAFE = re.compile(r"[A-Za-z0-9@._:/%+,=*\[\]-]{1,200}")
_UNIT = Fill(pattern=r"([\w@.:-]+?)\.service\b")
#: Placeholders that need no ``fill`` in the catalogue.
ALWAYS_FILLED = frozenset(
    {"unit", "release", "supported release", "host name", "state version", "flake"}
)
#: A checkout on the machine that runs the tests is no place to upgrade a host from.
_REMOTE = re.compile(r"(github|gitlab|sourcehut|git\+https|git\+ssh|https|tarball\+https):")
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*[A-Za-z0-9]")
_LITERAL = re.compile(r'(true|false|-?\d+|"[^"$\\]*")')


def remedy_text(
    control: Control,
    host: HostConfig | None,
    *,
    observed: Json = None,
    reason: str = "",
    today: dt.date,
) -> str:
    """Return what to do about a finding on this host, ready to be pasted.

    :param host: ``None`` where the host could not be evaluated: the newest text then, as it is in
        the catalogue.
    :param observed: what the finding says was observed.
    :param reason: the finding's sentence.
    :return: statements whose values are known; what nobody knows stays a comment that says what to
        put there.
    """
    if host is None:
        return control.remedy
    wrong = _wrong(control, observed)
    chosen = _chosen(control, host, [*_texts(wrong)] or [reason])
    if not chosen:
        return f"# NixOS {host.release} has no option for this: a newer release does."
    texts = [narrowed(remedy.text, wrong) for remedy in chosen]
    values: Values = {}
    if any(map(_names, (part for text in texts for part in statements(text)))):
        values = _values(control, host, observed=observed, reason=reason, today=today)
    return "\n".join(
        line
        for remedy, text in zip(chosen, texts, strict=True)
        for line in _lines(text, remedy.goes_into, values, host)
    )


def _lines(text: str, goes_into: str | None, values: Values, host: HostConfig) -> list[str]:
    """Return one remedy's text, filled."""
    parts = statements(text)
    # What a remedy says of two kinds of thing is given of the kind that was found.
    some = any(_names(part) and not _unknown(part, values) for part in parts if not part.is_comment)
    lines, so_already = [], []
    for statement in parts:
        if some and not statement.is_comment and _unknown(statement, values):
            continue
        if _is_so_already(statement, host):
            so_already.append((statement.assignment or ("",))[0])
        else:
            lines += _filled(statement, values)
    if so_already and all(line.startswith("#") for line in lines):
        lines += [
            f"# {path} is so already; something else decides on the machine." for path in so_already
        ]
    if goes_into is not None:
        other = "" if goes_into.startswith("a module") else ", not into a module"
        lines.insert(0, f"# Goes into {goes_into}{other}:")
    return lines


def _chosen(control: Control, host: HostConfig, found: Sequence[str]) -> list[Remedy]:
    """Return the remedies that the host's release has and whose conditions the host meets: those about
    what was found, and the first of the others where something is left that none of them is about.
    """
    fitting = [
        remedy
        for remedy in control.remedies
        if outside_releases(remedy.since, remedy.until, host.release) is None
        and all(unmet_requirement(condition, host) is None for condition in remedy.when)
    ]
    general = [remedy for remedy in fitting if remedy.about is None]
    special: list[Remedy] = []
    is_left = False
    for text in found:
        own = next((r for r in fitting if r.about and re.search(r.about, text)), None)
        is_left |= own is None
        if own is not None and own not in special:
            special.append(own)
    return [*special, *(general[:1] if is_left or not special else [])]


def sysctl_module(key: str, value: str = "") -> str | None:
    """Return the kernel module that brings a sysctl, ``None`` for one of the kernel itself or
    unknown.

    :param key: ``net.bridge.bridge-nf-call-iptables``; the longest entry of the table that it
        starts with counts.
    :param value: what the host declares, for keys that name an algorithm.
    """
    table = _sysctl_modules()
    matching = [
        prefix
        for prefix in table
        if key == prefix or key.startswith(prefix if prefix[-1] in "_-" else f"{prefix}.")
    ]
    if not matching:
        return None
    module = table[max(matching, key=len)].replace("<value>", value)
    return module if _MODULE.fullmatch(module) else None


@cache
def _sysctl_modules() -> Mapping[str, str]:
    text = files("pytest_nixos.standards").joinpath("data/sysctl-modules.toml").read_text("utf-8")
    return dict(tomllib.loads(text)["modules"])


def _values(
    control: Control, host: HostConfig, *, observed: Json, reason: str, today: dt.date
) -> Values:
    found = list(_texts(_wrong(control, observed)))
    # A check says in its sentence what is wrong, and may have observed the rest too.
    sources = [[reason], found] if control.check else [found, [reason]]
    known = {
        "release": [host.release],
        "supported release": [load_releases().newest_supported(today)],
        "host name": [host.host_name],
        # Of one that holds a whole version (24.05.20240701.dirty) the release, which none is above.
        "state version": [
            min(host.release, ".".join((host.state_version or host.release).split(".")[:2]))
        ],
        "flake": [url for url in (host.ref.flake.url,) if _REMOTE.match(url)],
    }
    for name, fill in {"unit": _UNIT, **control.fill}.items():
        known[name] = _of_fill(fill, host, [[reason]] if fill.reads == "reason" else sources)
    return {name: [v for v in values if _SAFE.fullmatch(v)] for name, values in known.items()}


def _of_fill(fill: Fill, host: HostConfig, sources: Sequence[Sequence[str]]) -> list[str]:
    """Return the values of one placeholder, from the first source that has any."""
    if fill.option is not None:
        declared = host.option(fill.option)
        value = declared.value if declared.present else None
        return [] if value is None else [str(value)]
    values = next((found for texts in sources if (found := _matches(fill, texts))), [])
    if fill.table is not None:
        modules = [sysctl_module(value, host.sysctls.get(value, "")) for value in values]
        values = [module for module in modules if module is not None]
    return list(dict.fromkeys(values))


def _matches(fill: Fill, texts: Sequence[str]) -> list[str]:
    expression = re.compile(fill.pattern or "", re.MULTILINE)
    return [match[1] for text in texts for match in expression.finditer(text)]


def _wrong(control: Control, observed: Json) -> Json:
    """Keep the members that violate; all of it where the expectation is about the whole."""
    expect = control.expect
    if isinstance(observed, Mapping) and set(observed) == {"machine", "declared"}:
        machine = _violating(expect, observed["machine"])
        own = control.declared.expect if control.declared is not None else None
        return machine or _violating(own or expect, observed["declared"])
    return _violating(expect, observed)


def _violating(expect: Expectation | None, value: Json) -> Json:
    if expect is None or expect.quantifier is Quantifier.WHOLE:
        return value
    one = replace(expect, quantifier=Quantifier.WHOLE)
    if isinstance(value, Mapping):
        return {name: inner for name, inner in value.items() if _fails(one, inner)}
    if isinstance(value, list | tuple):
        return [inner for inner in value if _fails(one, inner)]
    return value


def _fails(expect: Expectation, value: Json) -> bool:
    try:
        return mismatch(expect, value) is not None
    except NothingToCheckError:
        return False


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _texts(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _texts(inner)
    elif value is not None:
        yield str(value)


def _filled(statement: Statement, values: Values) -> list[str]:
    """Repeat a statement for each value of its placeholder; comment it out where a value is not
    known.
    """
    text = _PLACEHOLDER.sub(lambda match: _every(match, values), statement.text)
    names = _names(Statement(text))
    unknown = [name for name in names if not values.get(name)]
    if unknown and statement.is_comment:
        return [text]
    if unknown:
        what = " and ".join(f"<{name}>" for name in unknown)
        return [f"# With the right {what}:", *(f"# {line}" for line in text.splitlines())]
    if not names:
        return [text]
    count = max(len(values[name]) for name in names)
    lines = [_with(text, values, number) for number in range(min(count, SHOWN))]
    if count > SHOWN and not statement.is_comment:
        lines.append(f"# and the same for {count - SHOWN} more")
    return list(dict.fromkeys(lines))


def _names(statement: Statement) -> tuple[str, ...]:
    return _placeholders(statement.text)


@lru_cache(maxsize=4096)
def _placeholders(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(match[2] for match in _PLACEHOLDER.finditer(text)))


def _unknown(statement: Statement, values: Values) -> list[str]:
    return [name for name in _names(statement) if not values.get(name)]


def _every(match: re.Match[str], values: Values) -> str:
    known = values.get(match[2])
    return '" "'.join(known) if match[1] and known else match[0]


def _with(text: str, values: Values, number: int) -> str:
    def one(match: re.Match[str]) -> str:
        known = values[match[2]]
        return known[min(number, len(known) - 1)]

    return _PLACEHOLDER.sub(one, text)


def _is_so_already(statement: Statement, host: HostConfig) -> bool:
    """Whether the host is known to declare this very value."""
    assignment = statement.assignment
    if assignment is None or not _LITERAL.fullmatch(assignment[1]):
        return False
    path, value = assignment
    wanted: Json = value.strip('"') if value.startswith('"') else value
    sysctl = re.fullmatch(r'boot\.kernel\.sysctl\."([^"]+)"', path)
    if sysctl is not None:
        return host.sysctls.get(sysctl[1]) == str(wanted)
    declared = host.option(path)
    if not declared.present or isinstance(declared.value, Mapping | list):
        return False
    plain = {True: "true", False: "false"}.get(declared.value, str(declared.value))
    return declared.value is not None and plain == str(wanted)
