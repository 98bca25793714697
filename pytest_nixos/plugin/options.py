"""Command line options and ini settings, read once into a frozen :class:`Settings`.

Every project setting has an ini twin; the command line beats the ini file, which beats the default.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import pytest

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.errors import SettingsError
from pytest_nixos.findings import Severity
from pytest_nixos.local.numbers import positive
from pytest_nixos.machine.snapshot.limits import (
    DEFAULT_CACHE_DAYS,
    DEFAULT_CACHE_GIB,
    CacheLimits,
)
from pytest_nixos.nix.refs import FileRef, HostSelection, UpgradeFrom
from pytest_nixos.test_secrets.given import GivenSecret, RealKey

__all__ = [
    "Keep",
    "ReportTarget",
    "Settings",
    "SnapshotUse",
    "add_options",
    "option_rows",
]

DEFAULT_BOOT_TIMEOUT_S = 600.0
DEFAULT_EVALUATION_TIMEOUT_S = 1800.0
DEFAULT_PROFILE = "baseline"
_AUTO = "auto"


class Keep(enum.Enum):
    """``--nixos-keep``: whether a machine's run directory (console, disk) outlives it."""

    NEVER = "never"
    FAILED = "failed"
    ALWAYS = "always"


class SnapshotUse(enum.Enum):
    """``--nixos-snapshot``: whether VMs start from a saved state; `REFRESH` saves it anew."""

    AUTO = "auto"
    OFF = "off"
    REFRESH = "refresh"


class NetworkUse(enum.Enum):
    """``--nixos-network``: what a guest reaches beyond its own link."""

    RESTRICTED = "restricted"
    OPEN = "open"
    STAND_IN = "stand-in"


@dataclass(frozen=True, slots=True)
class ReportTarget:
    """One ``--nixos-report FORMAT:PATH``."""

    format: str
    path: Path

    def __str__(self) -> str:
        return f"{self.format}:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What this session was asked to do.

    :param flakes: hosts to test; empty means that the plugin stays out of the way.
    :param prepared: directories of hosts that Nix evaluated and built beforehand, in place of
        `flakes`.
    :param backend: how machines run, ``None`` where each host's own config decides: a container
        where it declares ``boot.isContainer``, else a VM.
    :param suites: bundled suites asked for by name; empty means all when no paths were given.
    :param baseline: JSON report of an earlier run; what failed there alike does not fail this run.
    :param fail_on: findings below this severity are reported and do not fail the run.
    :param boot_timeout_s: seconds from a machine's start to a settled system.
    :param upgrade_from: what hosts are upgraded from, ``None`` for no upgrade test.
    :param allow_live_switch: let tests change generations of a live host, and survey its ports.
    :param container_root_is_machine_root: give containers this machine's own user ids.
    :param run_script_has_my_rights: run a VM's script and QEMU outside of any sandbox.
    :param evaluation_memory_mib: what evaluating one host may take, ``None`` for no limit.
    :param where: tell where the options that decide a finding are set.
    :param network: what guests reach beyond their own link.
    :param secrets: values that the user gives for secrets.
    :param real_secrets_key: decrypts the host's own secrets; ``None`` for test secrets.
    :param snapshot: whether VMs start from a saved state.
    :param cache_limits: what the saved states of all hosts may take.
    """

    flakes: tuple[HostSelection, ...]
    backend: BackendName | None
    suites: tuple[str, ...]
    profiles: tuple[str, ...]
    catalogue_dirs: tuple[Path, ...]
    waivers: Path | None
    baseline: Path | None
    fail_on: Severity
    reports: tuple[ReportTarget, ...]
    keep: Keep
    snapshot: SnapshotUse
    cache_limits: CacheLimits
    boot_timeout_s: float
    memory_mib: int | None
    cores: int | None
    where: bool
    override_inputs: tuple[tuple[str, str], ...]
    nix_options: tuple[tuple[str, str], ...]
    impure: bool
    evaluation_timeout_s: float
    evaluation_memory_mib: int | None
    network: NetworkUse
    secrets: tuple[GivenSecret, ...]
    real_secrets_key: RealKey | None
    ssh_address: str | None
    upgrade_from: UpgradeFrom | None
    allow_live_switch: bool
    container_root_is_machine_root: bool = False
    run_script_has_my_rights: bool = False
    prepared: tuple[Path, ...] = ()

    @property
    def open_network(self) -> bool:
        """Whether guests reach beyond the host machine, where their backend can."""
        return self.network is NetworkUse.OPEN

    @property
    def active(self) -> bool:
        """Whether any host is to be tested."""
        return bool(self.flakes or self.prepared)

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read options and ini values.

        :raises SettingsError: naming the option, what was given and what is possible.
        """
        read = _Reader(config)
        cwd = config.invocation_params.dir
        prepared = tuple(dict.fromkeys(cwd / text for text in read.many("prepared")))
        return cls(
            flakes=() if prepared else _hosts(read, cwd),
            prepared=prepared,
            backend=_backend(read.one("backend")),
            suites=read.many("suite"),
            profiles=read.many("profile") or (DEFAULT_PROFILE,),
            catalogue_dirs=tuple(config.rootpath / d for d in read.many("catalogue")),
            waivers=read.path("waivers"),
            baseline=read.path("baseline"),
            fail_on=_severity(read.one("fail_on")),
            reports=tuple(_report(text, cwd) for text in read.many("report")),
            keep=_choice(Keep, read.one("keep"), option="keep"),
            snapshot=_choice(SnapshotUse, read.one("snapshot"), option="snapshot"),
            cache_limits=CacheLimits.of(
                size_gib=positive(read.one("cache_size"), option="--nixos-cache-size", unit="GiB"),
                age_days=positive(read.one("cache_age"), option="--nixos-cache-age", unit="days"),
            ),
            boot_timeout_s=positive(
                read.one("boot_timeout"), option="--nixos-boot-timeout", unit="seconds"
            ),
            memory_mib=_optional_count(read.one("memory"), option="memory"),
            cores=_optional_count(read.one("cores"), option="cores"),
            where=read.one("where") != "off",
            override_inputs=read.pairs("override_input"),
            nix_options=read.pairs("nix_option"),
            impure=read.flag("impure"),
            evaluation_timeout_s=positive(
                read.one("evaluation_timeout"), option="--nixos-evaluation-timeout", unit="seconds"
            ),
            evaluation_memory_mib=_optional_count(
                read.one("evaluation_memory"), option="evaluation-memory"
            ),
            network=_choice(NetworkUse, read.one("network"), option="network"),
            secrets=tuple(
                GivenSecret.parse(text, cwd=read.directory("secret"))
                for text in read.many("secret")
            ),
            real_secrets_key=_real_key(read.path("real_secrets_key")),
            ssh_address=read.one("ssh") or None,
            upgrade_from=_upgrade_from(read.one("upgrade_from"), cwd, read.one("backend")),
            allow_live_switch=read.flag("allow_live_switch"),
            container_root_is_machine_root=read.flag("container_root_is_machine_root"),
            run_script_has_my_rights=read.flag("run_script_has_my_rights"),
        )


def add_options(parser: pytest.Parser) -> None:
    """Declare every ``--nixos-*`` option and its ini twin; those that take a risk have none."""
    group = parser.getgroup("nixos", "NixOS hosts (pytest-nixos)")
    for name, default, kwargs, explanation in _OPTIONS:
        repeatable = kwargs.get("action") == "append"
        short = [str(kwargs["flag"])] if "flag" in kwargs else []
        group.addoption(
            *short,
            f"--nixos-{name.replace('_', '-')}",
            dest=f"nixos_{name}",
            default=None,
            help=explanation,
            **{word: value for word, value in kwargs.items() if word != "flag"},
        )
        if name in _ONLY_BY_HAND:
            continue
        parser.addini(
            f"nixos_{name}",
            help=f"{explanation} (as --nixos-{name.replace('_', '-')})",
            type=_ini_type(name, repeatable=repeatable),
            default=[] if repeatable else default,
        )


def option_rows() -> Iterator[tuple[str, str, str]]:
    """Yield each option as people read it: what is typed, its default, what it means."""
    for name, default, kwargs, explanation in _OPTIONS:
        metavar = kwargs.get("metavar", "")
        value = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
        choices = kwargs.get("choices")
        meaning = explanation
        if isinstance(choices, list):
            meaning += f" (`{'`, `'.join(map(str, choices))}`)"
        typed = f"--nixos-{name.replace('_', '-')} {value}".strip()
        short = f"{kwargs['flag']}, " if "flag" in kwargs else ""
        shown = "" if default in (None, "", False) else f"`{default}`"
        yield f'<a id="{typed.partition(" ")[0].lstrip("-")}"></a>`{short}{typed}`', shown, meaning


_OPTIONS: tuple[tuple[str, object, dict[str, object], str], ...] = (
    (
        "flake",
        None,
        {"action": "append", "metavar": "REF#HOST"},
        "host to test, as for nixos-rebuild --flake; REF alone means all hosts of the flake (repeatable)",
    ),
    (
        "file",
        None,
        {"action": "append", "metavar": "FILE"},
        "Nix file with hosts, without flakes: default.nix, configuration.nix; -A names one, else all its hosts (repeatable)",
    ),
    (
        "attr",
        None,
        {"action": "append", "metavar": "ATTR", "flag": "-A"},
        "host of --nixos-file by its attribute path, as for nix-build -A (repeatable)",
    ),
    (
        "prepared",
        None,
        {"action": "append", "metavar": "DIR"},
        "host to test that lib.checkHost prepared, without Nix; in place of --nixos-flake (repeatable)",
    ),
    (
        "backend",
        _AUTO,
        {"choices": [_AUTO, *sorted(EVERYWHERE)]},
        "how the machine runs; auto: a container where boot.isContainer is set, else a VM",
    ),
    (
        "suite",
        None,
        {"action": "append", "metavar": "NAME"},
        "bundled suite to run, also when paths are given; 'none' for no bundled suite (repeatable)",
    ),
    (
        "profile",
        None,
        {"action": "append", "metavar": "NAME"},
        f"profile of controls (repeatable, they combine; default: {DEFAULT_PROFILE})",
    ),
    (
        "catalogue",
        None,
        {"action": "append", "metavar": "DIR"},
        "directory with controls and profiles of your own (repeatable)",
    ),
    ("waivers", "", {"metavar": "FILE"}, "file of dated, reasoned exceptions"),
    (
        "baseline",
        "",
        {"metavar": "FILE"},
        "JSON report of an earlier run: fail only on what is new or worse since, and tell what went away",
    ),
    (
        "fail_on",
        "low",
        {"metavar": "SEVERITY"},
        "lowest severity that fails the run: style, low, medium, high, critical",
    ),
    (
        "report",
        None,
        {"action": "append", "metavar": "FORMAT:PATH"},
        "write the findings to a file, for example json:report.json (repeatable)",
    ),
    (
        "keep",
        "never",
        {"choices": [choice.value for choice in Keep]},
        "keep a machine's directory with console and disk",
    ),
    (
        "snapshot",
        "auto",
        {"choices": [choice.value for choice in SnapshotUse]},
        "start VMs from the state that an earlier run saved; refresh: boot and save it anew",
    ),
    (
        "cache_size",
        f"{DEFAULT_CACHE_GIB:g}",
        {"metavar": "GIB"},
        "room for saved machine states; those used least recently go first",
    ),
    (
        "cache_age",
        f"{DEFAULT_CACHE_DAYS:g}",
        {"metavar": "DAYS"},
        "days without use after which a saved machine state is removed",
    ),
    (
        "boot_timeout",
        str(int(DEFAULT_BOOT_TIMEOUT_S)),
        {"metavar": "SECONDS"},
        "limit from a machine's start to a settled system",
    ),
    ("memory", "", {"metavar": "MIB"}, "memory of the VM instead of what the host declares"),
    ("cores", "", {"metavar": "N"}, "cores of the VM instead of what the host declares"),
    (
        "where",
        "on",
        {"choices": ["on", "off"]},
        "tell file and line of the options that decide a finding",
    ),
    (
        "override_input",
        None,
        {"action": "append", "nargs": 2, "metavar": ("NAME", "REF")},
        "replace a flake input, as for nix --override-input (repeatable)",
    ),
    (
        "nix_option",
        None,
        {"action": "append", "nargs": 2, "metavar": ("NAME", "VALUE")},
        "setting for Nix, as for nix --option (repeatable)",
    ),
    (
        "evaluation_timeout",
        f"{DEFAULT_EVALUATION_TIMEOUT_S:g}",
        {"metavar": "SECONDS"},
        "limit of the evaluation of one host, fetching of its inputs included",
    ),
    (
        "evaluation_memory",
        "",
        {"metavar": "MIB"},
        "memory that the evaluation of one host may take (default: no limit)",
    ),
    ("impure", False, {"action": "store_true"}, "evaluate with nix --impure"),
    (
        "network",
        "restricted",
        {"choices": [choice.value for choice in NetworkUse]},
        "what guests reach: nothing beyond their link; all that this machine does (VMs); names and time of a stand-in (containers)",
    ),
    (
        "secret",
        None,
        {"action": "append", "metavar": "[HOST:]NAME=FILE"},
        "value of a declared secret, or of a plain file by its whole path, in test machines; NAME=kind:KIND makes one (repeatable)",
    ),
    (
        "real_secrets_key",
        "",
        {"metavar": "FILE"},
        "let test machines decrypt the host's real secrets with this private key of age or OpenSSH",
    ),
    ("ssh", "", {"metavar": "ADDRESS"}, "[user@]address of the live host for --nixos-backend ssh"),
    (
        "upgrade_from",
        "",
        {"metavar": "REF"},
        "boot this flake ref, REF#HOST or git revision, switch to the tested one, roll back, judge each",
    ),
    (
        "allow_live_switch",
        False,
        {"action": "store_true"},
        "let tests switch a live host to other generations and roll back, and hold its rules against its ports as they look from here",
    ),
    (
        "container_root_is_machine_root",
        False,
        {"action": "store_true"},
        "run containers without user ids of their own: what takes over the guest's root takes over this machine",
    ),
    (
        "run_script_has_my_rights",
        False,
        {"action": "store_true"},
        "run a VM's run script and QEMU without a sandbox: code of the flake does then what you can do",
    ),
)
# Whoever takes such a risk says so on the command line; a file that comes with the flake cannot.
# And a prepared host is a store path that no file knows beforehand.
_ONLY_BY_HAND = frozenset(
    {
        "container_root_is_machine_root",
        "prepared",
        "real_secrets_key",
        "run_script_has_my_rights",
    }
)


def _ini_type(name: str, *, repeatable: bool) -> Literal["linelist", "bool", "string"]:
    if repeatable:
        return "linelist"
    return "bool" if name in ("impure", "allow_live_switch") else "string"


class _Reader:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def one(self, name: str) -> str:
        given = self._config.getoption(f"nixos_{name}")
        return str(given if given is not None else self._config.getini(f"nixos_{name}"))

    def by_hand(self, name: str) -> bool:
        """Whether an option stands on the command line."""
        return self._config.getoption(f"nixos_{name}") is not None

    def many(self, name: str) -> tuple[str, ...]:
        given = self._config.getoption(f"nixos_{name}")
        if given is not None or name in _ONLY_BY_HAND:
            return tuple(given or ())
        return tuple(self._config.getini(f"nixos_{name}"))

    def flag(self, name: str) -> bool:
        given = self._config.getoption(f"nixos_{name}")
        return bool(given or (name not in _ONLY_BY_HAND and self._config.getini(f"nixos_{name}")))

    def path(self, name: str) -> Path | None:
        given = self._config.getoption(f"nixos_{name}")
        if given:
            return self._config.invocation_params.dir / str(given)
        if name in _ONLY_BY_HAND:
            return None
        ini = str(self._config.getini(f"nixos_{name}"))
        return self._config.rootpath / ini if ini else None

    def directory(self, name: str) -> Path:
        """Return what a relative path in an option starts from."""
        by_hand = self._config.getoption(f"nixos_{name}") is not None
        return self._config.invocation_params.dir if by_hand else self._config.rootpath

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        given = self._config.getoption(f"nixos_{name}")
        if given is not None:
            return tuple((first, second) for first, second in given)
        return tuple(_pair(line, name) for line in self._config.getini(f"nixos_{name}"))


def _hosts(read: _Reader, cwd: Path) -> tuple[HostSelection, ...]:
    """Return the hosts of flakes and files; where one kind is named on the command line, ini values
    of the other stand back.
    """
    from_flakes = read.many("flake") if read.by_hand("flake") or not read.by_hand("file") else ()
    from_files = read.many("file") if read.by_hand("file") or not read.by_hand("flake") else ()
    attrs = read.many("attr")
    if attrs and len(from_files) != 1:
        raise SettingsError(
            f"--nixos-attr {attrs[0]}: there {'are several files' if from_files else 'is no file'} that it could be of",
            remedy="name one file with it: --nixos-file ./default.nix -A host",
        )
    files = [FileRef.parse(text, cwd=cwd) for text in from_files]
    return tuple(
        dict.fromkeys(
            [
                *(HostSelection.parse(text, cwd=cwd) for text in from_flakes),
                *(HostSelection(file, attr) for file in files for attr in attrs or (None,)),
            ]
        )
    )


def _pair(line: str, name: str) -> tuple[str, str]:
    first, _, second = line.partition(" ")
    if not second.strip():
        raise SettingsError(
            f"ini nixos_{name}: {line!r} is one word", remedy="write two words a line: NAME VALUE"
        )
    return first, second.strip()


_E = TypeVar("_E", bound=enum.Enum)


def _choice(kind: type[_E], text: str, *, option: str) -> _E:
    try:
        return kind(text)
    except ValueError as err:
        raise _bad(option, text, ", ".join(str(member.value) for member in kind)) from err


def _backend(text: str) -> BackendName | None:
    if text == _AUTO:
        return None
    try:
        return {name.value: name for name in EVERYWHERE}[text]
    except KeyError as err:
        raise _bad("backend", text, ", ".join([_AUTO, *sorted(EVERYWHERE)])) from err


def _severity(text: str) -> Severity:
    try:
        return Severity[text.upper()]
    except KeyError as err:
        raise _bad("fail-on", text, ", ".join(s.name.lower() for s in Severity)) from err


def _report(text: str, cwd: Path) -> ReportTarget:
    kind, separator, path = text.partition(":")
    if not (kind and separator and path):
        raise _bad("report", text, "FORMAT:PATH, for example json:report.json")
    return ReportTarget(kind, cwd / path)


def _real_key(file: Path | None) -> RealKey | None:
    return None if file is None else RealKey.parse(file)


def _upgrade_from(text: str, cwd: Path, backend: str) -> UpgradeFrom | None:
    if not text:
        return None
    if backend == BackendName.SSH:
        raise SettingsError(
            "--nixos-upgrade-from: a live host is not upgraded by a test",
            remedy="test the upgrade on a VM of the host: --nixos-backend vm",
        )
    return UpgradeFrom.parse(text, cwd=cwd)


def _optional_count(text: str, *, option: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise _bad(option, text, "a whole number above zero")
    return int(text)


def _bad(option: str, got: str, expected: str) -> SettingsError:
    return SettingsError(f"--nixos-{option}: got {got!r}", remedy=f"expected: {expected}")
