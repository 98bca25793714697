"""``python -m pytest_nixos``: look at the machine, at a flake's hosts, at the controls, without running a test."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pytest_nixos import __version__
from pytest_nixos.errors import NixosError, SettingsError
from pytest_nixos.local.dirs import cache_directory
from pytest_nixos.local.numbers import positive
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.text import printable
from pytest_nixos.machine.channel.protocol import guest_script
from pytest_nixos.machine.snapshot.limits import (
    DEFAULT_CACHE_DAYS,
    DEFAULT_CACHE_GIB,
    CacheLimits,
)
from pytest_nixos.machine.snapshot.store import SnapshotStore
from pytest_nixos.nix.argv import NixSettings
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.refs import FlakeRef, HostRef, HostSelection
from pytest_nixos.nix.store import Nix
from pytest_nixos.standards.did_you_mean import did_you_mean
from pytest_nixos.standards.explain import explain, list_controls
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.model import STANDARDS
from pytest_nixos.standards.profile import load_profiles, select_controls

__all__ = ["main"]

_USAGE_EXIT = 4  # as pytest's own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 4 where the user's command is wrong."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], Iterator[str]] = options.command
    try:
        for line in command(options):
            sys.stdout.write(f"{line}\n")
    except NixosError as err:
        detail = f"\n{err.detail}" if err.detail and getattr(options, "verbose", False) else ""
        sys.stderr.write(f"ERROR: {_in_words_of_this_command(str(err))}{detail}\n")
        return _USAGE_EXIT
    return 0


def _in_words_of_this_command(text: str) -> str:
    """Return `text` with options of the pytest plugin as this command has them."""
    for name in ("override-input", "nix-option"):
        text = text.replace(f"--nixos-{name}", f"--{name}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pytest_nixos", description=__doc__)
    parser.add_argument("--version", action="version", version=f"pytest-nixos {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="tell what this machine can do")
    doctor.set_defaults(command=_doctor)

    hosts = commands.add_parser("hosts", help="list the hosts of a flake")
    hosts.add_argument("flake", metavar="REF", nargs="?", default=".")
    hosts.add_argument("--json", action="store_true", help="as a JSON list of name and ref")
    _add_nix_options(hosts)
    hosts.set_defaults(command=_hosts)

    build = commands.add_parser("build", help="build a host's machine and print its store path")
    build.add_argument("host", metavar="REF#HOST")
    build.add_argument("--backend", choices=("auto", "vm", "container"), default="auto")
    build.add_argument("--gc-root", metavar="LINK", type=Path, default=Path("result-machine"))
    _add_nix_options(build)
    build.add_argument(
        "--snapshot",
        action="store_true",
        help="a VM whose state can be saved, as --nixos-snapshot auto",
    )
    build.set_defaults(command=_build)

    controls = commands.add_parser("controls", help="list controls, or explain one")
    controls.add_argument("id", metavar="ID", nargs="?")
    controls.add_argument("--profile", action="append", default=[], metavar="NAME")
    controls.add_argument("--standard", metavar="NAME")
    controls.add_argument("--catalogue", action="append", default=[], metavar="DIR", type=Path)
    controls.set_defaults(command=_controls)

    cache = commands.add_parser(
        "cache", help="list what is cached, check it, or remove what is too old or too much"
    )
    cache.add_argument(
        "action", choices=("list", "prune", "verify", "clear"), nargs="?", default="list"
    )
    cache.add_argument("--size", metavar="GIB", default=f"{DEFAULT_CACHE_GIB:g}", help="for prune")
    cache.add_argument("--age", metavar="DAYS", default=f"{DEFAULT_CACHE_DAYS:g}", help="for prune")
    cache.set_defaults(command=_cache)
    return parser


def _add_nix_options(parser: argparse.ArgumentParser) -> None:
    for name, metavar, explanation in (
        ("--override-input", ("NAME", "REF"), "use another flake as an input, as nix does"),
        ("--nix-option", ("NAME", "VALUE"), "setting for Nix, as for nix --option"),
    ):
        parser.add_argument(
            name, action="append", nargs=2, default=[], metavar=metavar, help=explanation
        )
    parser.add_argument("-v", "--verbose", action="store_true", help="show the trace of an error")


def _nix_settings(options: argparse.Namespace) -> NixSettings:
    return NixSettings(
        override_inputs=tuple((name, ref) for name, ref in options.override_input),
        nix_options=tuple((name, value) for name, value in options.nix_option),
    )


def _doctor(_options: argparse.Namespace) -> Iterator[str]:
    yield f"pytest-nixos {__version__}, Python {sys.version.split()[0]}"
    nix = shutil.which("nix")
    version = Nix(runner=SubprocessRunner()).version() if nix else ""
    yield f"nix: {version or 'not on PATH; containers and VMs need it'}"
    yield f"root: {'yes' if os.geteuid() == 0 else 'no; containers need it, VMs do not'}"
    nspawn = shutil.which("systemd-nspawn")
    yield f"systemd-nspawn: {nspawn or 'not on PATH; containers need it'}"
    yield from _kvm()


def _kvm() -> Iterator[str]:
    from pytest_nixos.machine.qemu.kvm import KvmProbe, VerdictCache

    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        yield "KVM: probed with the host's own QEMU at the first boot (no QEMU on PATH, none is needed)"
        return
    verdict = KvmProbe(SubprocessRunner(), VerdictCache.of_user()).probe(qemu)
    yield f"KVM: {'works' if verdict.usable else f'does not work: {verdict.reason}'}"


def _hosts(options: argparse.Namespace) -> Iterator[str]:
    selection = HostSelection.parse(options.flake, cwd=Path.cwd())
    names = _flake(selection.flake, _nix_settings(options)).host_names()
    if options.json:
        hosts = [{"name": name, "ref": str(HostRef(selection.flake, name))} for name in names]
        yield json.dumps(hosts, indent=2)
    else:
        yield from map(printable, names)


def _build(options: argparse.Namespace) -> Iterator[str]:
    selection = HostSelection.parse(options.host, cwd=Path.cwd())
    if selection.host is None:
        raise SettingsError(f"{options.host}: names no host", remedy="write REF#HOST")
    flake = _flake(selection.flake, _nix_settings(options), snapshot=options.snapshot)
    config = flake.evaluate(selection.host.attr, backend=options.backend)
    yield str(flake.build(config, gc_root=options.gc_root))


def _flake(ref: FlakeRef, settings: NixSettings, *, snapshot: bool = False) -> Flake:
    """Return a flake whose machines are as the plugin's options default."""
    instrumentation = Instrumentation(channel_script=guest_script(), snapshot=snapshot)
    return Flake(ref, Nix(runner=SubprocessRunner(), settings=settings), instrumentation)


def _controls(options: argparse.Namespace) -> Iterator[str]:
    catalogue = load_catalogue(options.catalogue)
    if options.id is not None:
        yield explain(catalogue.control(options.id), catalogue)
        return
    controls = tuple(catalogue)
    if options.profile:
        profiles = load_profiles(catalogue, options.catalogue)
        controls = select_controls(options.profile, profiles, catalogue)
    if options.standard is not None:
        _check_standard(options.standard)
        controls = tuple(c for c in controls if options.standard in c.references)
    yield list_controls(controls)


def _check_standard(name: str) -> None:
    if name not in STANDARDS:
        raise SettingsError(
            f"no standard {name!r}{did_you_mean(name, STANDARDS)}",
            remedy=f"use one of {', '.join(sorted(STANDARDS))}",
        )


def _cache(options: argparse.Namespace) -> Iterator[str]:
    from pytest_nixos.cli import cache

    snapshots = SnapshotStore.of_user()
    evaluations = cache_directory("evaluations")
    actions: dict[str, Callable[[], Iterator[str]]] = {
        "list": lambda: cache.listed(evaluations, snapshots),
        "prune": lambda: cache.pruned(evaluations, snapshots, _limits(options)),
        "verify": lambda: cache.verified(snapshots),
        "clear": lambda: cache.cleared(evaluations, snapshots),
    }
    yield from actions[options.action]()


def _limits(options: argparse.Namespace) -> CacheLimits:
    return CacheLimits.of(
        size_gib=positive(options.size, option="--size", unit="GiB"),
        age_days=positive(options.age, option="--age", unit="days"),
    )
