"""Unit files, as the guest's own systemd reads them: what it refuses, ignores, or cannot order.

The journal is a poor witness for this: the manager reads its units before journald runs, and in a
container what it says then reaches no log at all. ``systemd-analyze verify`` (systemd-analyze(1))
loads the same files with the same code in about 0.1 s and starts nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.systemd.unit import is_template
from pytest_nixos.observe.text import whole

__all__ = [
    "BrokenCycle",
    "IgnoredDirective",
    "UnitFileReport",
    "UnitRemark",
    "parse_verify",
    "verify_units",
]

_MAX_BYTES = 262144
# File, line, and a text such as Unknown key 'PrivateTemp' in section [Service], ignoring.
_PLACED = re.compile(r"^(?P<path>/\S+?):(?P<line>\d+): (?P<text>.+)$")
_NAMED = re.compile(
    r"^(?P<unit>[^\s:/]+\.(?:service|socket|timer|path|mount|automount|swap|target|slice|scope|device)): (?P<text>.+)$"
)
_BAD_UNIT = re.compile(r"^Unit (?P<unit>\S+) has a bad unit file setting")
# systemd until 245 says "lvalue", until 256 "key name 'X' in section 'Y'", from 257 on "key 'X' in
# section [Y]".
_UNKNOWN_KEY = re.compile(r"Unknown (?:key|lvalue)(?: name)? '(?P<key>[^']+)' in section")
_UNKNOWN_SECTION = re.compile(r"Unknown section '(?P<key>[^']+)'")
_IGNORED = re.compile(r"\bignoring\b|\bignored\b|\bIgnoring\b")
# It says so and exits with 0: nothing was read.
_GAVE_UP = re.compile(r"^Failed to (?:initialize|startup|start) manager", re.MULTILINE)
# Of one cycle each member may be named; which job systemd drops for it depends on where it starts. Until 257 its members follow in
# lines of their own, from 258 on all stand in one: "Found ordering cycle: b.service/start after a.service/start - after b.service".
_CYCLE = re.compile(r"^Found ordering cycle(?: on|:) (?P<at>\S+?)/(?P<more>.*)")
_MEMBER = re.compile(r"(?:\bafter |^Found dependency on )(?P<name>\S+?)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRemark:
    """One thing that systemd says of one unit.

    :param line: line of the unit file, 0 where systemd names none.
    """

    unit: str
    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoredDirective:
    """Something written in a unit file that systemd does not apply.

    :param key: the directive or section that it does not know, ``""`` where it is the value that it
        refuses.
    """

    unit: str
    line: int
    key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenCycle:
    """An ordering cycle through two units: systemd drops the job of one so that the others can
    start.

    :param members: all units of the cycle, each ordered after the next and the last one after the
        first: `at` is the first, `unit` the last.
    """

    unit: str
    at: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFileReport:
    """What systemd says of a set of unit files.

    :param answered: whether ``systemd-analyze`` ran at all; nothing may be concluded if not.
    """

    answered: bool
    remarks: tuple[UnitRemark, ...]
    ignored: tuple[IgnoredDirective, ...]
    cycles: tuple[BrokenCycle, ...]
    refused: tuple[str, ...]

    def of(self, unit: str) -> tuple[str, ...]:
        """Return what is said of one unit, each text once."""
        return tuple(dict.fromkeys(r.text for r in self.remarks if r.unit == unit))


def verify_units(
    names: Sequence[str], *, name: str = "unit-files-verified"
) -> Probe[UnitFileReport]:
    """Let the guest's systemd read unit files again and tell what is wrong with them.

    :param names: units with suffix. Of a template systemd verifies an instance with a made-up name,
        so of its directives only those that it does not know are told, and no value.
    :return: probe of a report on these units and those that they pull in.
    """
    wanted = tuple(dict.fromkeys(names))
    verify = shlex.join(["systemd-analyze", "verify", "--man=no", "--", *wanted])
    # The exit status only says that there are remarks, so a line of our own tells that the program
    # ran to its end.
    script = (
        "command -v systemd-analyze >/dev/null || exit 127; "
        "export SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_COLOR=0; "
        f"timeout 120 {verify} 2>&1 >/dev/null | head -c {_MAX_BYTES}; (( PIPESTATUS[0] < 124 ))"
    )
    return Probe(name=name, script=script if wanted else ":", parse=_parse)


def _parse(output: ProbeOutput) -> UnitFileReport:
    return parse_verify(output.text, answered=output.exit_status == 0)


def parse_verify(text: str, *, answered: bool) -> UnitFileReport:
    """Read what ``systemd-analyze verify`` wrote to standard error.

    :param answered: whether the program ran to its end.
    """
    told = [remark for line in text.split("\n") if (remark := _remark(line)) is not None]
    lines = list(dict.fromkeys(text.split("\n")))
    remarks = list(dict.fromkeys(told))
    return UnitFileReport(
        answered=answered and not _GAVE_UP.search(text),
        remarks=tuple(remarks),
        ignored=tuple(ignored for remark in remarks if (ignored := _ignored(remark)) is not None),
        cycles=_cycles(told),
        refused=tuple(
            dict.fromkeys(bad["unit"] for line in lines if (bad := _BAD_UNIT.match(line)))
        ),
    )


def _cycles(told: Sequence[UnitRemark]) -> tuple[BrokenCycle, ...]:
    """Return each cycle once, however often and from whichever of its members it is told."""
    found: dict[frozenset[str], BrokenCycle] = {}
    for number, remark in enumerate(told):
        if cycle := _CYCLE.search(remark.text):
            members = [cycle["at"], *_MEMBER.findall(cycle["more"])]
            for following in told[number + 1 :]:
                member = _MEMBER.match(following.text)
                if remark.unit in members or following.unit != remark.unit or member is None:
                    break
                members.append(member["name"])
            whole_cycle = tuple(dict.fromkeys((*members, remark.unit)))
            found.setdefault(
                frozenset(whole_cycle),
                BrokenCycle(unit=remark.unit, at=cycle["at"], members=whole_cycle),
            )
    return tuple(found.values())


def _remark(line: str) -> UnitRemark | None:
    if placed := _PLACED.match(line):
        return UnitRemark(
            unit=_unit_of(placed["path"]),
            line=whole(placed["line"]) or 0,
            text=placed["text"].strip(),
        )
    if named := _NAMED.match(line):
        return UnitRemark(unit=named["unit"], line=0, text=named["text"].strip())
    if bad := _BAD_UNIT.match(line):
        return UnitRemark(unit=bad["unit"], line=0, text=line.strip())
    return None


def _unit_of(path: str) -> str:
    folder, _, file = path.rpartition("/")
    parent = folder.rpartition("/")[2]
    # "feed.service.d/overrides.conf" speaks of feed.service.
    return parent.removesuffix(".d") if file.endswith(".conf") and parent.endswith(".d") else file


def _ignored(remark: UnitRemark) -> IgnoredDirective | None:
    """Only what has a line: without one, systemd speaks of units that are pulled in, not of a
    directive.
    """
    unknown = _UNKNOWN_KEY.search(remark.text) or _UNKNOWN_SECTION.search(remark.text)
    refused = _IGNORED.search(remark.text) and not is_template(remark.unit)
    if not remark.line or not (unknown or refused):
        return None
    key = unknown["key"] if unknown else ""
    return IgnoredDirective(unit=remark.unit, line=remark.line, key=key, text=remark.text)
