"""Opening a session: list the hosts that were asked for, load the standards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_nixos.generations.upgrade_stage import Stage
from pytest_nixos.nix.command.refs import HomesRef, HostRef
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.nix.prepared import PreparedFlakes
from pytest_nixos.nix.schedule import Question, select_hosts
from pytest_nixos.plugin.session import HostEntry, NixosSession
from pytest_nixos.plugin.settings.options import Settings
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.judging.decides import where_paths
from pytest_nixos.standards.load import load_catalogue, option_paths
from pytest_nixos.standards.profile import load_profiles, select_controls
from pytest_nixos.standards.waivers import load_waivers

if TYPE_CHECKING:
    from pytest_nixos.recording.recording import Recording

__all__ = ["FURTHER_OPTIONS", "open_session"]

# Asked for beside what the controls read: a container takes over declared addresses, and what a
# host says to this plugin.
FURTHER_OPTIONS = (
    "networking.interfaces",
    "passthru.pytest-nixos",
    # Rules in the tools' own languages.
    "networking.firewall.extraCommands",
    "networking.firewall.extraInputRules",
    "networking.nftables.enable",
    "networking.nftables.ruleset",
    "networking.nftables.tables",
    # What is told of test secrets: where key and decrypted files lie in the machine.
    "age.identityPaths",
    "sops.age.keyFile",
    "sops.useTmpfs",
    # Whether a boot runs activation snippets at all.
    "system.nixos-init.enable",
    # A VM is made without it, which is told.
    "documentation.nixos.enable",
)


def open_session(
    settings: Settings, flakes: Flakes, *, catalogue_dirs: Sequence[Path]
) -> NixosSession:
    """List the hosts of a run; they are evaluated once it is known which of them have tests.

    :raises NixosError: if a flake or host cannot be found, or the catalogue is malformed.
    """
    catalogue = load_catalogue(catalogue_dirs)
    profiles = load_profiles(catalogue, catalogue_dirs)
    named: set[HostRef | None]
    controls = select_controls(settings.profiles, profiles, catalogue)
    waivers = load_waivers(settings.waivers, catalogue.controls) if settings.waivers else ()
    if settings.record is not None:
        from pytest_nixos.recording.files import try_new

        try_new(settings.record)
    recording = _recording(settings, flakes)
    if recording is not None:
        refs, named = tuple(recording.refs.values()), set(recording.refs.values())
    elif isinstance(flakes, PreparedFlakes):
        refs = flakes.refs
        named = set(refs)
    else:
        refs = select_hosts(flakes, settings.flakes)
        named = {selection.host for selection in settings.flakes}
        named |= {ref for ref in refs if isinstance(ref.flake, HomesRef)}
    asked = controls if settings.record is None else tuple(catalogue)
    return NixosSession(
        settings=settings,
        flakes=flakes,
        question=_question(settings, asked, [ref for ref in refs if ref not in named]),
        catalogue=catalogue,
        controls=controls,
        waivers=waivers,
        entries=_entries(refs, settings) if recording is None else _recorded_entries(recording),
        recording=recording,
    )


def _entries(refs: Sequence[HostRef], settings: Settings) -> list[HostEntry]:
    """Return one entry a host, or of an upgrade test one for each stage of it."""
    keys = _keys(refs)
    if settings.upgrade_from is None:
        return [HostEntry(key=key, ref=ref) for key, ref in keys.items()]
    entries = []
    for key, new in keys.items():
        old = settings.upgrade_from.of(new)
        for stage in Stage:
            ref = new if stage is Stage.NEW else old
            entries.append(HostEntry(key=stage.of(key), ref=ref, subject=key, stage=stage))
    return entries


def _recording(settings: Settings, flakes: Flakes) -> Recording | None:
    if settings.replay is None:
        return None
    from pytest_nixos.recording.recording import RecordedFlakes

    assert isinstance(flakes, RecordedFlakes)
    return flakes.recording


def _recorded_entries(recording: Recording) -> list[HostEntry]:
    return [HostEntry(key=key, ref=ref) for key, ref in recording.refs.items()]


def _keys(refs: Sequence[HostRef]) -> dict[str, HostRef]:
    """Name hosts by attribute; by flake and attribute where two flakes have the same one."""
    count = Counter(ref.name for ref in refs)
    return {ref.name if count[ref.name] == 1 else str(ref): ref for ref in refs}


def _question(
    settings: Settings, controls: Sequence[Control], unnamed: Sequence[HostRef]
) -> Question:
    # One that runs already is asked for what it declares: as the machine that it would be here.
    given = settings.backend
    backend = None if given is not None and given.runs_already else given
    return Question(
        backend="auto" if backend is None else backend,
        option_paths=tuple(dict.fromkeys((*option_paths(controls), *FURTHER_OPTIONS))),
        where=where_paths(controls) if settings.where else (),
        machines_only=frozenset(unnamed),
    )
