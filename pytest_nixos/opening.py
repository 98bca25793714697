"""Opening a session: list the hosts that were asked for, evaluate each once, load the standards."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from pytest_nixos.errors import EvalError, FlakeError
from pytest_nixos.evaluation_cache import EvaluationCache, default_cache_directory
from pytest_nixos.flake import HostRef
from pytest_nixos.nix import Nix
from pytest_nixos.nix_command import NixSettings
from pytest_nixos.nix_expression import Instrumentation
from pytest_nixos.options import BackendChoice, Settings
from pytest_nixos.process import SubprocessRunner
from pytest_nixos.session import HostEntry, NixosSession
from pytest_nixos.standards.loader import load_catalogue, option_paths
from pytest_nixos.standards.model import Control
from pytest_nixos.standards.profile import load_profiles, select_controls
from pytest_nixos.standards.waivers import load_waivers

__all__ = ["host_refs", "instrumentation", "make_nix", "nix_settings", "open_session"]

# Facts that backends ask for beside the controls: a container takes over declared addresses.
_BACKEND_OPTIONS = ("networking.interfaces",)

Say = Callable[[str], None]


def open_session(
    settings: Settings, nix: Nix, *, catalogue_dirs: Sequence[Path], say: Say
) -> NixosSession:
    """List and evaluate the hosts of a run.

    A host that does not evaluate becomes an entry with its failure, so that the others are still judged.

    :param say: told what is being done, one line each.
    :raises NixosError: if a flake or host cannot be found, the catalogue is malformed, or no host evaluates.
    """
    catalogue = load_catalogue(catalogue_dirs)
    profiles = load_profiles(catalogue, catalogue_dirs)
    controls = select_controls(settings.profiles, profiles, catalogue)
    waivers = load_waivers(settings.waivers, catalogue.controls) if settings.waivers else ()
    refs = host_refs(settings, nix)
    entries = [
        _evaluated(key, ref, settings, nix, controls, say) for key, ref in _keys(refs).items()
    ]
    failures = [entry.failure for entry in entries if entry.failure is not None]
    if len(failures) == len(entries):
        raise failures[0]
    return NixosSession(
        settings=settings,
        nix=nix,
        catalogue=catalogue,
        controls=controls,
        waivers=waivers,
        entries=entries,
    )


def make_nix(settings: NixSettings, instrumentation: Instrumentation) -> Nix:
    """Make the Nix command line of this machine."""
    return Nix(runner=SubprocessRunner(), instrumentation=instrumentation, settings=settings)


def nix_settings(settings: Settings) -> NixSettings:
    """Return what the session asks of Nix; evaluations are kept in the user's cache directory."""
    return NixSettings(
        override_inputs=settings.override_inputs,
        nix_options=settings.nix_options,
        impure=settings.impure,
        cache=EvaluationCache(directory=default_cache_directory(os.environ)),
    )


def instrumentation(settings: Settings | None = None) -> Instrumentation:
    """Return what a VM gets beside the host's own config; without settings, as the options default."""
    script = resources.files("pytest_nixos.machine").joinpath("guest_channel.bash")
    text = script.read_text(encoding="utf-8")
    if settings is None:
        return Instrumentation(channel_script=text)
    return Instrumentation(
        channel_script=text,
        memory_mib=settings.memory_mib,
        cores=settings.cores,
        restrict_network=not settings.open_network,
    )


def host_refs(settings: Settings, nix: Nix) -> tuple[HostRef, ...]:
    """Return the hosts that the settings select, each once, in order.

    :raises FlakeError: if a flake is not there, has no hosts, or lacks one that was named.
    """
    refs: dict[HostRef, None] = {}
    for selection in settings.flakes:
        if selection.host is not None:
            refs[selection.host] = None
            continue
        names = nix.host_names(selection.flake)
        if not names:
            raise FlakeError(
                f"{selection.flake}: nixosConfigurations is empty",
                remedy="add a host to the flake, or name another flake",
            )
        refs |= {HostRef(selection.flake, name): None for name in names}
    return tuple(refs)


def _keys(refs: Sequence[HostRef]) -> dict[str, HostRef]:
    """Name hosts by attribute; by flake and attribute where two flakes have the same one."""
    count = Counter(ref.attr for ref in refs)
    return {ref.attr if count[ref.attr] == 1 else str(ref): ref for ref in refs}


def _evaluated(
    key: str,
    ref: HostRef,
    settings: Settings,
    nix: Nix,
    controls: Sequence[Control],
    say: Say,
) -> HostEntry:
    entry = HostEntry(key=key, ref=ref)
    backend = settings.backend
    kind = "auto" if backend is BackendChoice.SSH else backend.value
    say(f"{key}: evaluating {ref}")
    started_s = time.monotonic()
    try:
        paths = (*option_paths(controls), *_BACKEND_OPTIONS)
        entry.config = nix.evaluate(ref, backend=kind, option_paths=paths)
    except EvalError as err:
        entry.fail(err)
        say(f"{key}: does not evaluate")
    entry.phases_s["evaluate"] = time.monotonic() - started_s
    return entry
