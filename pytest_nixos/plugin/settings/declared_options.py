"""What is declared to pytest: each command line option and its ini twin.

Every pytest run imports this module, also one without a host: it imports next to nothing.
:mod:`pytest_nixos.plugin.settings.options` reads what was given.
"""

from __future__ import annotations

import argparse
import enum
from collections.abc import Iterator
from typing import Literal

import pytest

from pytest_nixos.backend_name import EVERYWHERE
from pytest_nixos.machine.snapshot.limits import DEFAULT_CACHE_DAYS, DEFAULT_CACHE_GIB

__all__ = [
    "AUTO",
    "DEFAULT_PROFILE",
    "DEFAULT_SSH_AT_ONCE",
    "HOST_IN_ADDRESS",
    "ONLY_BY_HAND",
    "DisksUse",
    "Keep",
    "NetworkUse",
    "SnapshotUse",
    "add_options",
    "any_given",
    "option_rows",
]

AUTO = "auto"
DEFAULT_BOOT_TIMEOUT_S = 600.0
DEFAULT_EVALUATION_TIMEOUT_S = 1800.0
DEFAULT_PROFILE = "baseline"
#: Stands in ``--nixos-ssh`` for the host's name in its flake.
HOST_IN_ADDRESS = "{host}"
DEFAULT_SSH_AT_ONCE = 8


class Keep(enum.Enum):
    """``--nixos-keep``: whether a machine outlives its run, or its run directory (console, disk)
    outlives it.
    """

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


class DisksUse(enum.Enum):
    """``--nixos-disks``: which disks a VM has: those of ``build-vm``, or its host's own."""

    DEFAULT = "default"
    DECLARED = "declared"


class _Once(argparse.Action):
    """An option whose second value would replace the first without a word."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Take the value.

        :raises argparse.ArgumentError: if it is the second one.
        """
        if getattr(namespace, self.dest, None) is not None:
            raise argparse.ArgumentError(
                self, f"is given twice\n  remedy: give one {option_string}"
            )
        setattr(namespace, self.dest, values)


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
        if name in ONLY_BY_HAND:
            continue
        parser.addini(
            f"nixos_{name}",
            help=f"{explanation} (as --nixos-{name.replace('_', '-')})",
            type=_ini_type(name, repeatable=repeatable),
            default=[] if repeatable else default,
        )


def any_given(config: pytest.Config) -> bool:
    """Whether the command line or the ini file says anything to this plugin."""
    for name, default, kwargs, _ in _OPTIONS:
        if config.getoption(f"nixos_{name}") is not None:
            return True
        if name not in ONLY_BY_HAND:
            unsaid = [] if kwargs.get("action") == "append" else default
            if config.getini(f"nixos_{name}") != unsaid:
                return True
    return False


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
        "test",
        None,
        {"action": "append", "metavar": "REF#ATTR"},
        "NixOS test whose nodes are judged, each as a host: .#checks.x86_64-linux.mytest, one of them by .nodes.NAME (repeatable)",
    ),
    (
        "prepared",
        None,
        {"action": "append", "metavar": "DIR"},
        "host to test that lib.checkHost prepared, without Nix; in place of --nixos-flake (repeatable)",
    ),
    (
        "test_driver",
        "",
        {"action": _Once, "metavar": "SOCKET"},
        "where the driver of a NixOS test listens that has started the prepared host's machine; lib.judge gives it",
    ),
    (
        "record",
        "",
        {"action": _Once, "metavar": "DIR"},
        "keep what this run sees of its hosts, secrets redacted, in a new directory",
    ),
    (
        "replay",
        "",
        {"action": _Once, "metavar": "DIR"},
        "judge again what --nixos-record kept, without Nix and machine; in place of --nixos-flake",
    ),
    (
        "watch",
        False,
        {"action": "store_true"},
        "run again after each change of the flake, and judge only what that can affect; Ctrl-C ends",
    ),
    (
        "backend",
        AUTO,
        {"choices": [AUTO, *sorted(EVERYWHERE)]},
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
        "sign",
        "",
        {"action": _Once, "metavar": "KEY"},
        "sign reports and recordings with this SSH or minisign key: PATH.sig or PATH.minisig beside each",
    ),
    (
        "keep",
        "never",
        {"choices": [choice.value for choice in Keep]},
        "leave a machine running to be looked at (pytest-nixos machines), or keep the directory, with console and disk, of one that is not up",
    ),
    (
        "snapshot",
        "auto",
        {"choices": [choice.value for choice in SnapshotUse]},
        "start VMs from the state that an earlier run saved; refresh: boot and save it anew",
    ),
    (
        "spare",
        "",
        {"metavar": "MINUTES"},
        "leave a machine of each VM host ready and stopped for the next run, which takes it over; ends by itself after that time",
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
        "what guests reach: nothing beyond their link; all that this machine does (VMs); names and the time of a stand-in for the internet",
    ),
    (
        "disks",
        "default",
        {"choices": [choice.value for choice in DisksUse]},
        "which disks a VM has: one of build-vm's in place of the host's, or those that the host declares, made anew and small",
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
    (
        "ssh",
        "",
        {"metavar": "ADDRESS"},
        "[user@]address of the live host, {host} in it stands for the name of each: judge it, and start no machine",
    ),
    (
        "ssh_at_once",
        str(DEFAULT_SSH_AT_ONCE),
        {"metavar": "N"},
        "live hosts that are connected to and looked at at one time",
    ),
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
# A prepared host is a store path that no file knows beforehand, and who watches sits before it.
ONLY_BY_HAND = frozenset(
    {
        "container_root_is_machine_root",
        "prepared",
        "real_secrets_key",
        "record",
        "replay",
        "run_script_has_my_rights",
        "test_driver",
        "watch",
    }
)


def _ini_type(name: str, *, repeatable: bool) -> Literal["linelist", "bool", "string"]:
    if repeatable:
        return "linelist"
    return "bool" if name in ("impure", "allow_live_switch") else "string"
