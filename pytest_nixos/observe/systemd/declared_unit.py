"""The units that a host declares: which of them its machine has too, and what systemd makes of them, asked
once for all suites that judge them.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.systemd.unit import UnitState, is_template, shared_units
from pytest_nixos.observe.systemd.unit_file import UnitFileReport, verify_units

__all__ = [
    "SANDBOXING",
    "declared_files",
    "declared_states",
    "declared_templates",
    "declared_units",
]

# Properties of org.freedesktop.systemd1(5) that checks need beside a unit's state.
_JUDGED = (
    "LoadError",
    "Type",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "AssertResult",
    "AssertTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "Triggers",
    "TriggeredBy",
    "WantedBy",
    "RequiredBy",
    "RequisiteOf",
    "BoundBy",
    "UpheldBy",
    "OnFailureOf",
    "OnSuccessOf",
    "PropagatesStopTo",
    "ConsistsOf",
    "BusName",
    "NextElapseUSecRealtime",
    "NextElapseUSecMonotonic",
    "LastTriggerUSec",
    "Result",
)
#: Directives of systemd.exec(5) that sandbox a service. The value of all but the last two is printed by
#: ``systemctl show`` in the words of the unit file.
SANDBOXING = (
    "NoNewPrivileges",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateNetwork",
    "PrivateUsers",
    "PrivateIPC",
    "PrivateMounts",
    "ProtectSystem",
    "ProtectHome",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "ProtectClock",
    "ProtectHostname",
    "ProtectProc",
    "ProcSubset",
    "RestrictSUIDSGID",
    "RestrictRealtime",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "DynamicUser",
    "RemoveIPC",
    "CapabilityBoundingSet",
    "SystemCallFilter",
)


def declared_units(host: HostConfig, *suffixes: str) -> Mapping[str, Unit]:
    """Return the units that the host declares and that its machine has too, without templates.

    What a VM or container leaves out or starts otherwise (a container has no dhcpcd, and sshd by
    its socket) is listed among the options that differ, and says nothing about the host.
    A prefix of slices that is a drop-in, or that says nothing (``user-.slice`` of every host of
    nixpkgs 24.05, by its module of systemd-oomd), is no unit that systemd could load.

    :param suffixes: kinds of unit, for example ``.timer``; none for all.
    """
    return {
        name: unit
        for name, unit in sorted(host.units.items())
        if unit.enabled
        and not is_template(name)
        and not _adds_to_slices(unit)
        and (not suffixes or name.endswith(suffixes))
        and not _differs_in_machine(host, name)
    }


def _adds_to_slices(unit: Unit) -> bool:
    return unit.is_prefix_of_slices and (unit.is_drop_in or not any(unit.settings.values()))


def declared_templates(host: HostConfig) -> frozenset[str]:
    """Return the templates that the host declares and that its machine has too; what is said of one
    holds for each of its instances. A drop-in for all slices of a prefix is as one.
    """
    return frozenset(
        name
        for name, unit in host.units.items()
        if unit.enabled
        and (is_template(name) or _adds_to_slices(unit))
        and not _differs_in_machine(host, name)
    )


def declared_states(host: HostConfig) -> Probe[Mapping[str, UnitState]]:
    """Ask for every unit that the host declares, and for what wants one, with all properties by which the
    bundled suites judge them: who asks in these words gets the answer that another one had.

    :return: probe of name to state, as :func:`~pytest_nixos.observe.systemd.unit.units` gives it; templates have
        none.
    """
    wanting = {target for unit in host.units.values() for target in unit.wanted_by}
    return shared_units(
        sorted({*host.units, *wanting}), properties=(*_JUDGED, *SANDBOXING), name="declared-units"
    )


def declared_files(host: HostConfig) -> Probe[UnitFileReport]:
    """Ask what the guest's systemd says of the files of :func:`declared_units` and
    :func:`declared_templates`.
    """
    return verify_units(sorted({*declared_units(host), *declared_templates(host)}))


def _differs_in_machine(host: HostConfig, name: str) -> bool:
    path = f'systemd.units."{name}"'
    return not host.changed.keys().isdisjoint((path, f"{path}.enabled", f"{path}.wantedBy"))
