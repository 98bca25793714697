"""What was given, read once into a frozen :class:`Settings`.

Every project setting has an ini twin; the command line beats the ini file, which beats the default.
"""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from msgspec.structs import replace

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.errors import SettingsError
from pytest_nixos.findings import Severity
from pytest_nixos.local.numbers import positive
from pytest_nixos.machine.snapshot.limits import CacheLimits
from pytest_nixos.nix.command.refs import FileRef, HostSelection, UpgradeFrom
from pytest_nixos.nix.expression import attribute_names
from pytest_nixos.plugin.settings.declared_options import (
    AUTO,
    DEFAULT_PROFILE,
    DEFAULT_SSH_AT_ONCE,
    HOST_IN_ADDRESS,
    ONLY_BY_HAND,
    DisksUse,
    Keep,
    NetworkUse,
    SnapshotUse,
)
from pytest_nixos.test_secrets.given import GivenSecret, RealKey

__all__ = ["ReportTarget", "Settings"]


class ReportTarget(msgspec.Struct, frozen=True):
    """One ``--nixos-report FORMAT:PATH``."""

    format: str
    path: Path

    def __str__(self) -> str:
        return f"{self.format}:{self.path}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What this session was asked to do.

    :param flakes: hosts to test; empty means that the plugin stays out of the way.
    :param prepared: directories of hosts that Nix evaluated and built beforehand, in place of
        `flakes`.
    :param test_driver: where the driver of a NixOS test listens, which has started the machine.
    :param record: directory that gets what this run sees of its hosts.
    :param replay: such a directory, whose hosts are judged again in place of `flakes`.
    :param sign: SSH key that signs reports and recordings.
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
    :param disks: which disks a VM has.
    :param secrets: values that the user gives for secrets.
    :param real_secrets_key: decrypts the host's own secrets; ``None`` for test secrets.
    :param ssh_address: of live hosts; :data:`HOST_IN_ADDRESS` stands for each one's name.
    :param ssh_at_once: live hosts that are connected to at one time.
    :param snapshot: whether VMs start from a saved state.
    :param spare_s: seconds for which a stopped machine waits for the next run, 0 for none.
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
    spare_s: float
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
    disks: DisksUse
    secrets: tuple[GivenSecret, ...]
    real_secrets_key: RealKey | None
    ssh_address: str | None
    ssh_at_once: int
    upgrade_from: UpgradeFrom | None
    allow_live_switch: bool
    container_root_is_machine_root: bool = False
    run_script_has_my_rights: bool = False
    prepared: tuple[Path, ...] = ()
    test_driver: Path | None = None
    record: Path | None = None
    replay: Path | None = None
    sign: Path | None = None

    @property
    def open_network(self) -> bool:
        """Whether guests reach beyond the host machine, where their backend can."""
        return self.network is NetworkUse.OPEN

    @property
    def active(self) -> bool:
        """Whether any host is to be tested."""
        return bool(self.flakes or self.prepared or self.replay)

    def without_reports(self) -> Settings:
        """Return these settings for a run that judges only a part: the reports that an ini file asks
        for are of whole runs.
        """
        return replace(self, reports=(), sign=None)

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read options and ini values.

        :raises SettingsError: naming the option, what was given and what is possible.
        """
        read = _Reader(config)
        cwd = config.invocation_params.dir
        prepared = tuple(dict.fromkeys(cwd / text for text in read.many("prepared")))
        for name in ("record", "replay", "sign"):
            read.refuse_nothing(name)
        record, replay = read.path("record"), read.path("replay")
        _check_recording(record, replay, read)
        return cls(
            flakes=() if prepared or replay else _hosts(read, cwd),
            prepared=prepared,
            record=record,
            replay=replay,
            sign=read.path("sign"),
            test_driver=read.path("test_driver"),
            backend=_backend_of(read),
            suites=read.many("suite"),
            profiles=read.many("profile") or (DEFAULT_PROFILE,),
            catalogue_dirs=tuple(config.rootpath / d for d in read.many("catalogue")),
            waivers=read.path("waivers"),
            baseline=read.path("baseline"),
            fail_on=_severity(read.one("fail_on")),
            reports=tuple(_report(text, cwd) for text in read.many("report")),
            keep=_choice(Keep, read.one("keep"), option="keep"),
            snapshot=_choice(SnapshotUse, read.one("snapshot"), option="snapshot"),
            spare_s=_minutes_s(read.one("spare")),
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
            disks=_choice(DisksUse, read.one("disks"), option="disks"),
            secrets=tuple(
                GivenSecret.parse(text, cwd=read.directory("secret"))
                for text in read.many("secret")
            ),
            real_secrets_key=_real_key(read.path("real_secrets_key")),
            ssh_address=_ssh_address(read.one("ssh")),
            ssh_at_once=_optional_count(read.one("ssh_at_once"), option="ssh-at-once")
            or DEFAULT_SSH_AT_ONCE,
            upgrade_from=_upgrade_from(read.one("upgrade_from"), cwd, read.one("backend")),
            allow_live_switch=read.flag("allow_live_switch"),
            container_root_is_machine_root=read.flag("container_root_is_machine_root"),
            run_script_has_my_rights=read.flag("run_script_has_my_rights"),
        )


class _Reader:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def one(self, name: str) -> str:
        given = self._config.getoption(f"nixos_{name}")
        return str(given if given is not None else self._config.getini(f"nixos_{name}"))

    def by_hand(self, name: str) -> bool:
        """Whether an option stands on the command line."""
        return self._config.getoption(f"nixos_{name}") is not None

    def refuse_nothing(self, name: str) -> None:
        """Refuse an option whose value is empty, as an unset variable of a shell leaves it.

        :raises SettingsError: then.
        """
        if self._config.getoption(f"nixos_{name}") == "":
            raise SettingsError(
                f"--nixos-{name}: got nothing",
                remedy="give it a path; is a shell's variable unset?",
            )

    def many(self, name: str) -> tuple[str, ...]:
        given = self._config.getoption(f"nixos_{name}")
        if given is not None or name in ONLY_BY_HAND:
            return tuple(given or ())
        return tuple(self._config.getini(f"nixos_{name}"))

    def is_typed(self, name: str) -> bool:
        """Whether the command line names it, and not only an ini file."""
        return bool(self._config.getoption(f"nixos_{name}"))

    def flag(self, name: str) -> bool:
        given = self._config.getoption(f"nixos_{name}")
        return bool(given or (name not in ONLY_BY_HAND and self._config.getini(f"nixos_{name}")))

    def path(self, name: str) -> Path | None:
        given = self._config.getoption(f"nixos_{name}")
        if given:
            return self._config.invocation_params.dir / str(given)
        if name in ONLY_BY_HAND:
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
    """Return the hosts of flakes, files and tests; where one kind is named on the command line, ini values
    of the others stand back.
    """
    by_hand = [name for name in ("flake", "file", "test") if read.by_hand(name)]

    def given(name: str) -> tuple[str, ...]:
        return read.many(name) if name in by_hand or not by_hand else ()

    from_flakes, from_files, from_tests = map(given, ("flake", "file", "test"))
    # An ini file's names stand back with its file.
    attrs = read.many("attr") if read.by_hand("attr") or from_files else ()
    for attr in attrs:
        attribute_names(attr)
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
                *(HostSelection.parse_test(text, cwd=cwd) for text in from_tests),
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


def _backend_of(read: _Reader) -> BackendName | None:
    if read.is_typed("test_driver"):
        return BackendName.TEST_DRIVER
    return _backend(read.one("backend")) or (BackendName.SSH if read.is_typed("ssh") else None)


def _backend(text: str) -> BackendName | None:
    if text == AUTO:
        return None
    try:
        return {name.value: name for name in EVERYWHERE}[text]
    except KeyError as err:
        raise _bad("backend", text, ", ".join([AUTO, *sorted(EVERYWHERE)])) from err


def _severity(text: str) -> Severity:
    try:
        return Severity[text.upper()]
    except KeyError as err:
        raise _bad("fail-on", text, ", ".join(s.name.lower() for s in Severity)) from err


def _report(text: str, cwd: Path) -> ReportTarget:
    kind, separator, path = text.partition(":")
    if not (kind and separator and path):
        raise _bad("report", text, "FORMAT:PATH, for example json:report.json")
    if HOST_IN_ADDRESS in str(Path(path).parent):
        raise _bad("report", text, f"{HOST_IN_ADDRESS} in the file's name, and not in a folder's")
    return ReportTarget(kind, cwd / path)


def _real_key(file: Path | None) -> RealKey | None:
    return None if file is None else RealKey.parse(file)


def _ssh_address(text: str) -> str | None:
    if re.search(r"[{}]", text.replace(HOST_IN_ADDRESS, "")):
        raise _bad(
            "ssh", text, f"[user@]address, in which only {HOST_IN_ADDRESS} stands for a name"
        )
    return text or None


def _upgrade_from(text: str, cwd: Path, backend: str) -> UpgradeFrom | None:
    if not text:
        return None
    if backend == BackendName.SSH:
        raise SettingsError(
            "--nixos-upgrade-from: a live host is not upgraded by a test",
            remedy="test the upgrade on a VM of the host: --nixos-backend vm",
        )
    return UpgradeFrom.parse(text, cwd=cwd)


def _check_recording(record: Path | None, replay: Path | None, read: _Reader) -> None:
    """Refuse what cannot be recorded or replayed.

    :raises SettingsError: naming the options that exclude each other.
    """
    option = "--nixos-record" if record is not None else "--nixos-replay"
    if record is None and replay is None:
        return
    others = {
        "--nixos-replay": record is not None and replay is not None,
        "--nixos-prepared": replay is not None and bool(read.many("prepared")),
        # Those of an ini file are what other runs test.
        **{
            f"--nixos-{name}": replay is not None and read.is_typed(name)
            for name in ("flake", "file", "attr", "test")
        },
        "--nixos-upgrade-from": bool(read.one("upgrade_from")),
        # What a machine with the host's real secrets says belongs in no file.
        "--nixos-real-secrets-key": read.path("real_secrets_key") is not None,
    }
    for other, given in others.items():
        if given:
            raise SettingsError(f"{option} does not go with {other}", remedy=f"leave {other} out")


def _optional_count(text: str, *, option: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise _bad(option, text, "a whole number above zero")
    return int(text)


def _minutes_s(text: str) -> float:
    return 60.0 * positive(text, option="--nixos-spare", unit="minutes") if text else 0.0


def _bad(option: str, got: str, expected: str) -> SettingsError:
    return SettingsError(f"--nixos-{option}: got {got!r}", remedy=f"expected: {expected}")
