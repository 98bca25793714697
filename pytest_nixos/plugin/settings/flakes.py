"""The flakes of a run, as its settings want them."""

from __future__ import annotations

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.machine.channel.protocol import guest_script
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.plugin.settings.declared_options import DisksUse, NetworkUse, SnapshotUse
from pytest_nixos.plugin.settings.options import Settings

__all__ = ["ask_ahead", "flakes_of"]


def flakes_of(settings: Settings) -> Flakes:
    """Return the flakes of a session as its settings want them; evaluations are kept in the
    user's cache directory.

    :raises SettingsError: if a prepared host cannot be read.
    """
    nix = Nix(
        runner=SubprocessRunner(),
        settings=NixSettings(
            override_inputs=settings.override_inputs,
            nix_options=settings.nix_options,
            impure=settings.impure,
            evaluation_limit_s=settings.evaluation_timeout_s,
            evaluation_limit_mib=settings.evaluation_memory_mib,
            cache=EvaluationCache.of_user(most_age_s=settings.cache_limits.most_age_s),
        ),
    )
    instrumentation = Instrumentation(
        channel_script=guest_script(),
        memory_mib=settings.memory_mib,
        cores=settings.cores,
        restrict_network=settings.network is NetworkUse.RESTRICTED,
        stand_in=settings.network is NetworkUse.STAND_IN,
        snapshot=settings.snapshot is not SnapshotUse.OFF,
        secrets="test" if settings.real_secrets_key is None else settings.real_secrets_key.form,
        own_disks=settings.disks is DisksUse.DECLARED,
        plain_files=any(secret.is_plain_file for secret in settings.secrets),
    )
    if settings.replay is not None:
        from pytest_nixos.recording.recording import RecordedFlakes, Recording

        return RecordedFlakes(nix, instrumentation, Recording.open(settings.replay))
    if settings.prepared:
        from pytest_nixos.nix.prepared import PreparedFlakes, read_prepared

        hosts = tuple(map(read_prepared, settings.prepared))
        return PreparedFlakes(nix, instrumentation, hosts)
    return Flakes(nix, instrumentation)


def ask_ahead(flakes: Flakes, settings: Settings) -> None:
    """Have Nix say what the flakes are while the rest of the plugin is loaded."""
    for ref in {selection.flake for selection in settings.flakes}:
        if type(ref) is FlakeRef:
            flakes.of(ref).ask_ahead()
