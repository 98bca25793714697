"""systemd units: their properties, files and exposure, many in one call."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import whole
from pytest_nixos.observe.unit_table import PRINT_UNITS, UnitQuery

__all__ = [
    "MANY_RESTARTS",
    "STATE_PROPERTIES",
    "Exposure",
    "ExposureItem",
    "UnitState",
    "askable_units",
    "exposure",
    "failed_units",
    "is_template",
    "lively_services",
    "parse_show",
    "shared_units",
    "system_state",
    "unit_files",
    "unit_name",
    "units",
]

#: What :class:`UnitState` needs for its own answers.
STATE_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "SourcePath",
    "Transient",
    "WantedBy",
    "RequiredBy",
    "UpheldBy",
    "TriggeredBy",
    "MainPID",
    "ControlGroup",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "NeedDaemonReload",
)

# As systemd.unit(5) lists them.
_SUFFIXES = frozenset(
    (
        "service",
        "socket",
        "device",
        "mount",
        "automount",
        "swap",
        "target",
        "path",
        "timer",
        "slice",
        "scope",
    )
)
# As src/basic/unit-name.c has it.
_VALID = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_ASSIGNMENT = re.compile(r"[A-Z][A-Za-z0-9]*=")
_PULLED_IN_BY = ("WantedBy", "RequiredBy", "UpheldBy")
_RUNNING = frozenset({"active", "reloading", "refreshing"})

# Text and not --json: only the text holds the overall score of named units (systemd 250 to 258),
# and it is the same since 240. SYSTEMD_UTF8 fixes the marks, COLUMNS keeps descriptions on one
# line.
_SECURITY = (
    "SYSTEMD_COLORS=0 SYSTEMD_UTF8=1 SYSTEMD_EMOJI=0 COLUMNS=200 LC_ALL=C.UTF-8 "
    "systemd-analyze security --no-pager {units}"
)
_OVERALL = re.compile(r"Overall exposure level for (\S+): ([\d.]+) (\w+)")
_MISSING = "\u2717"  # ballot x

#: As many restarts as a service makes that merely waits for another one.
MANY_RESTARTS = 5
_BETWEEN_TRIES = frozenset({"auto-restart", "auto-restart-queued"})


class UnitState(msgspec.Struct, frozen=True, kw_only=True):
    """One unit as systemd sees it now.

    :param name: as it was asked for, with suffix.
    :param properties: property to value as ``systemctl show`` prints it; where a property is
        printed more than once (``ExecStart=``), one value a line.
    """

    name: str
    properties: Mapping[str, str]

    def get(self, name: str) -> str:
        """Return one property, ``""`` if it is not set."""
        return self.properties.get(name, "")

    @property
    def exists(self) -> bool:
        """Whether systemd has this very unit, masked or broken ones included.

        systemd answers "loaded" for any well-formed device or slice name, so something besides must
        vouch for the unit.
        """
        if self.get("LoadState") in ("", "not-found"):
            return False
        return (
            self.get("LoadState") != "loaded"
            or bool(self.get("FragmentPath") or self.get("SourcePath"))
            or self.get("Transient") == "yes"
            or self.get("ActiveState") != "inactive"
        )

    @property
    def is_running(self) -> bool:
        """Whether the unit is active; a oneshot unit that remains after exit counts."""
        return self.get("ActiveState") in _RUNNING

    @property
    def is_failed(self) -> bool:
        """Whether the unit's last run failed."""
        return self.get("ActiveState") == "failed"

    @property
    def is_masked(self) -> bool:
        """Whether the unit is masked, for this boot or for good."""
        return self.get("LoadState") == "masked" or self.get("UnitFileState").startswith("masked")

    @property
    def is_enabled(self) -> bool:
        """Whether something pulls the unit in.

        NixOS links units from the store and installs no ``[Install]`` sections, so systemd may call
        a unit that starts at every boot ``linked``, ``generated`` or ``static``; what counts is
        that another unit wants, requires or upholds it.
        """
        if self.is_masked or not self.exists:
            return False
        if self.get("UnitFileState") in ("enabled", "enabled-runtime"):
            return True
        return any(self.get(name) for name in _PULLED_IN_BY)

    @property
    def restarts(self) -> int:
        """How often systemd has started it again by itself (``NRestarts``)."""
        return whole(self.get("NRestarts")) or 0

    @property
    def restarts_too_often(self) -> bool:
        """Whether it was started again more often than a service that merely waits for another one."""
        return self.restarts > MANY_RESTARTS

    @property
    def is_restless(self) -> bool:
        """Whether a service is between two tries, or was started again too often; for a moment of each
        try it looks well.
        """
        return self.get("SubState") in _BETWEEN_TRIES or self.restarts_too_often

    @property
    def main_pid(self) -> int | None:
        """Process id of the unit's main process, if it has one."""
        return whole(self.get("MainPID")) or None


class ExposureItem(msgspec.Struct, frozen=True, kw_only=True):
    """One directive that is missing or too weak, with what it adds to the score."""

    directive: str
    description: str
    weight: float


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """The exposure of one service.

    :param score: 0.0 (closed) to 10.0 (open).
    :param rating: systemd's word for it: ``PERFECT``, ``SAFE``, ``OK``, ``MEDIUM``, ``EXPOSED``,
        ``UNSAFE``, ``DANGEROUS``.
    :param items: what adds to it, worst first.
    """

    unit: str
    score: float
    rating: str
    items: tuple[ExposureItem, ...]


def unit_name(name: str) -> str:
    """Return `name` with the suffix ``.service`` unless it has a unit suffix, as systemctl does."""
    return name if name.rpartition(".")[2] in _SUFFIXES and "." in name else f"{name}.service"


def askable_units(names: Iterable[str]) -> Sequence[str]:
    """Return the units, with suffix and each once, about whose state systemd can be asked.

    Left out are templates, which have none, and what cannot be a unit's name: systemctl gives the
    whole answer up at one.
    """
    full = dict.fromkeys(unit_name(name) for name in names)
    return tuple(name for name in full if _VALID.fullmatch(name) and not is_template(name))


def is_template(name: str) -> bool:
    """Whether `name` is a template (``getty@.service``), which has files but no state."""
    return "@." in name


def units(
    names: Sequence[str], *, properties: Sequence[str] = (), name: str = "unit"
) -> Probe[Mapping[str, UnitState]]:
    """Ask for the state of many units in one call.

    :param names: unit names; those of :func:`askable_units` are asked for.
    :param properties: more properties than :data:`STATE_PROPERTIES`; ``("*",)`` asks for all.
    :return: probe of name, as given but with suffix, to state; a unit that does not exist is there
        too, with ``exists`` false. A name that is missing got no answer, because systemd did not
        give one.
    """
    wanted = askable_units(names)
    script = shlex.join(["systemctl", "show", "--no-pager", *_selection(properties), "--", *wanted])
    return Probe(
        name=name,
        script=script if wanted else ":",
        parse=lambda output: _by_name(parse_show(output.text), wanted),
    )


def shared_units(
    names: Sequence[str],
    *,
    light: Sequence[str] = (),
    properties: Sequence[str] = (),
    name: str = "unit",
) -> Probe[Mapping[str, UnitState]]:
    """Ask as :func:`units` does, by the table of units that many probes of a trip share.

    :param light: further names, of which only existence, ``LoadState``, ``ActiveState`` and
        ``SubState`` are of interest.
    """
    full, few = tuple(askable_units(names)), tuple(askable_units(light))
    wanted = tuple(dict.fromkeys((*full, *few)))
    if not wanted:
        return units((), name=name)
    return Probe(
        name=name,
        script=PRINT_UNITS,
        parse=lambda output: _by_name(parse_show(output.text), wanted),
        units=UnitQuery(names=full, light=few, properties=(*STATE_PROPERTIES, *properties)),
    )


def lively_services(
    names: Sequence[str], *, name: str = "services"
) -> Probe[Mapping[str, UnitState]]:
    """Ask by the shared table for those of `names` that run, start, end, or have failed."""
    wanted = askable_units(names)
    return Probe(
        name=name,
        script=PRINT_UNITS,
        parse=lambda output: _by_name(parse_show(output.text), wanted),
        units=UnitQuery(services=True, properties=STATE_PROPERTIES),
    )


def exposure(names: Sequence[str], *, name: str = "exposure") -> Probe[Mapping[str, Exposure]]:
    """Ask for the exposure of many services in one call.

    :param names: unit names; those that are no services, and templates, are left out.
    :return: probe of name, with suffix, to exposure; a service that systemd could not judge is
        absent.
    """
    wanted = [name for name in askable_units(names) if name.endswith(".service")]
    # Without names it would judge every service.
    script = _SECURITY.format(units=shlex.join(wanted)) if wanted else ":"
    return Probe(name=name, script=script, parse=_parse_exposure)


def failed_units(*, name: str = "failed-units") -> Probe[Sequence[str] | None]:
    """Ask for the names of failed units; ``None`` if systemd did not answer."""
    script = "systemctl list-units --state=failed --all --plain --no-legend --no-pager --full"
    return Probe(name=name, script=script, parse=_parse_first_words)


def unit_files(*, name: str = "unit-files") -> Probe[Mapping[str, str] | None]:
    """Ask for all unit files; name to state (``enabled``, ``linked``, ``static``, ...), ``None``
    if there is no answer.

    systemd reads every file anew for this: seconds where the store is a share of the host machine.
    """
    script = "SYSTEMD_BUS_TIMEOUT=120 systemctl list-unit-files --no-legend --no-pager --full"
    return Probe(name=name, script=script, parse=_parse_unit_files)


def system_state(*, name: str = "system-state") -> Probe[str]:
    """Ask for the manager's own state: ``running``, ``degraded``, ``starting``, ...; ``""`` if
    unknown.
    """
    return Probe(
        name=name, script="systemctl is-system-running", parse=lambda output: output.text.strip()
    )


def parse_show(text: str) -> Sequence[Mapping[str, str]]:
    """Read the output of ``systemctl show`` for one or more units.

    A value may hold newlines, so a line that is no assignment continues the one before; a property
    that is printed again (one line a command) adds a line.
    """
    blocks: list[dict[str, str]] = [{}]
    last = ""
    for line in text.split("\n"):
        if not line:
            # Only "Id=" can tell a new unit from an empty line inside a value; see `_by_name`.
            blocks.append({})
            last = ""
        elif _ASSIGNMENT.match(line):
            last, _, value = line.partition("=")
            before = blocks[-1].get(last)
            blocks[-1][last] = value if before is None else f"{before}\n{value}"
        elif last:
            blocks[-1][last] += f"\n{line}"
    return [block for block in blocks if block]


def _selection(properties: Sequence[str]) -> Sequence[str]:
    if "*" in properties:
        return ["--all"]
    names = dict.fromkeys(("Id", "Names", *STATE_PROPERTIES, *properties))
    return [f"--property={','.join(names)}"]


def _by_name(blocks: Sequence[Mapping[str, str]], wanted: Sequence[str]) -> Mapping[str, UnitState]:
    merged: list[dict[str, str]] = []
    for block in blocks:
        if "Id" in block and merged and "Id" not in merged[-1]:
            merged[-1].update(block)
        elif "Id" in block or not merged:
            merged.append(dict(block))
        else:
            merged[-1].update({k: v for k, v in block.items() if k not in merged[-1]})
    # A value that holds an empty line and "Id=" looks like one more unit, or like part of this one:
    # of two answers about one unit none is believed.
    states: dict[str, UnitState] = {}
    contested: set[str] = set()
    for block in merged:
        ids = block.get("Id", "").split("\n")
        for unit in {*ids, *block.get("Names", "").split()} & set(wanted):
            state = UnitState(name=unit, properties=block)
            if len(ids) > 1 or states.setdefault(unit, state) != state:
                contested.add(unit)
    return {name: state for name, state in states.items() if name not in contested}


def _parse_first_words(output: ProbeOutput) -> Sequence[str] | None:
    if output.exit_status != 0:
        return None
    # systemd before 246 marks failed units with a bullet even with --plain.
    lines = (line.lstrip("●*\u00d7 ").split() for line in output.text.split("\n"))
    return tuple(words[0] for words in lines if words)


def _parse_unit_files(output: ProbeOutput) -> Mapping[str, str] | None:
    if output.exit_status != 0:
        return None
    lines = (line.split() for line in output.text.split("\n"))
    return {words[0]: words[1] for words in lines if len(words) >= 2}


def _parse_exposure(output: ProbeOutput) -> Mapping[str, Exposure]:
    found: dict[str, Exposure] = {}
    items: list[ExposureItem] = []
    for line in output.text.split("\n"):
        overall = _OVERALL.search(line)
        if overall:
            items.sort(key=lambda item: -item.weight)
            score = _weight(overall[2])
            found[overall[1]] = Exposure(
                unit=overall[1], score=score, rating=overall[3], items=tuple(items)
            )
            items = []
        elif line.lstrip().startswith(_MISSING):
            _, directive, *words = line.split()
            weight = _weight(words[-1]) if words else 0.0
            items.append(
                ExposureItem(directive=directive, description=" ".join(words[:-1]), weight=weight)
            )
    return found


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
