"""The facts of a host: what one ``nixosConfigurations`` entry *declares*, each declared once, as
a field of :class:`HostConfig`.

A field says where its fact stands among the options, how it is read, and whether it is compared
with the machine. The expression takes the paths from here, and so do the parser and the search for
what breaks an evaluation. To add a fact, add a field; if its value is not plain JSON, give it a
reader of the same name in ``expressions/facts.nix``. Facts that a release does not have are
``None`` or empty, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, get_type_hints

import msgspec

from pytest_nixos.nix.command.refs import HomesRef, HostRef, NixosTestRef
from pytest_nixos.nix.config.cards import Card
from pytest_nixos.nix.config.declared import (
    Declared,
    FileSystem,
    Firewall,
    InitrdSsh,
    LuksDevice,
    OllamaSettings,
    SoftwareRaid,
    SwapDevice,
    User,
    VmSettings,
    Zram,
)
from pytest_nixos.nix.config.definitions import Definitions
from pytest_nixos.nix.config.differences import differences, sub_path
from pytest_nixos.nix.config.secrets import Secrets
from pytest_nixos.nix.config.tunnels import Tunnel, parse_tunnels
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.nix.config.unit_needs import UnitNeed, names_path, needs_of

__all__ = ["Fact", "HostConfig", "host_facts", "parse_host_config"]

Json = Any

#: What the instrumentation does where the kernel is started directly; the values are words, since
#: evaluating the host's own would make its boot loader for nothing.
_NO_BOOT_LOADER: Mapping[str, tuple[Json, Json]] = {
    "system.build.installBootLoader": ("the host's own program", "a program that does nothing")
}
_NO_SNAPSHOT: Json = {"refusal": "only a VM's state can be saved", "changed": {}}


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """How a field of :class:`HostConfig` follows from the evaluated config.

    :param path: where it stands among the options, as written in a module.
    :param parse: from the document's value to the field's.
    :param parse_entry: for a set of named entries, each of which may throw by itself: from name and
        value to the field's value.
    :param absent: the field's value where the fact cannot be read.
    :param compared: whether a difference between the host and the machine made of it is told.
    """

    path: str
    parse: Callable[[Json], Any] = lambda value: value
    parse_entry: Callable[[str, Json], Any] | None = None
    absent: Any = None
    compared: bool = True


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The evaluated facts of one host.

    :param system: of what builds the machine and starts it, as Nix names it, for example ``x86_64-linux``.
    :param guest_system: of the machine's own programs; another one where the host is built on another platform
        (``nixpkgs.buildPlatform``), ``""`` in recordings of earlier versions.
    :param options: every option path that was asked for, see :class:`Declared`.
    :param changed: option paths whose value differs between the host as it is and the machine that
        is started (the VM variant or container plus the instrumentation): path to (declared, in the
        machine).
    :param backend: ``vm`` or ``container``: what `derivation` builds.
    :param luks_devices: names of what stage 1 unlocks; `luks` tells more of each.
    :param initrd_ssh: ``None`` where stage 1 takes no passphrase over the network.
    :param swraid: ``None`` where the release has no such option.
    :param crypttab: crypttab(5), by which stage 2 opens devices.
    :param disko: the devices that disko makes, reduced to what a layout needs (``facts.nix``);
        empty where the host does not use it.
    :param own_disks: whether the machine has the disks that the host declares, and not those of
        ``build-vm``.
    :param machine_tpm: whether the machine has a TPM (``virtualisation.tpm.enable``).
    :param initrd_text: commands and units of stage 1 that may name devices.
    :param machine_file_systems: what the machine mounts in place of `file_systems`, ``None`` if
        that is not known; `machine_swap_devices` likewise.
    :param image: what it is where it is made into a medium and not into a machine that stays (``an
        ISO image``), ``""`` for a machine.
    :param unreadable: option paths of facts that throw, or that Nix cannot evaluate; such a fact is
        empty here.
    :param own_services: services, with suffix, that the host's own modules or those of inputs other
        than nixpkgs say something about; ``None`` where the release does not tell.
    :param derivation: store path of the derivation that builds the machine (the run script's
        package for a VM, the toplevel for a container).
    :param output: store path that the derivation builds.
    :param toplevel: store path of the system that the machine boots.
    :param program: path of the run script inside that package (``bin/run-<name>-vm``), ``""`` for a
        container.
    :param where: by option path that was asked for: who sets it and where; of those that exist.
    :param cards: the network cards that the config speaks of, at least one.
    :param orphan_vlans: names of VLANs that it puts on no card.
    :param snapshot_refusal: why the machine's state cannot be saved, ``""`` where it can (a VM made
        for it).
    """

    ref: HostRef
    host_name: Annotated[str, Fact(path="networking.hostName", absent="")]
    system_name: Annotated[str, Fact(path="system.name", absent="", compared=False)]
    system: str
    state_version: Annotated[str | None, Fact(path="system.stateVersion")]
    release: Annotated[str, Fact(path="system.nixos.release", absent="", compared=False)]
    version: Annotated[str, Fact(path="system.nixos.version", absent="", compared=False)]
    is_container: Annotated[bool, Fact(path="boot.isContainer", absent=False)]
    firewall: Annotated[
        Firewall, Fact(path="networking.firewall", parse=Firewall.parse, absent=Firewall.none())
    ]
    sysctls: Annotated[
        Mapping[str, str], Fact(path="boot.kernel.sysctl", parse_entry=lambda _, value: value)
    ]
    zram: Annotated[Zram | None, Fact(path="zramSwap", parse=Zram.parse)]
    units: Annotated[
        Mapping[str, Unit], Fact(path="systemd.units", parse_entry=Unit.parse, compared=False)
    ]
    users: Annotated[Mapping[str, User], Fact(path="users.users", parse_entry=User.parse)]
    groups: Annotated[tuple[str, ...], Fact(path="users.groups", parse=tuple, absent=())]
    ollama: Annotated[
        OllamaSettings | None, Fact(path="services.ollama", parse=OllamaSettings.parse)
    ]
    kernel_params: Annotated[
        tuple[str, ...], Fact(path="boot.kernelParams", parse=tuple, absent=())
    ]
    file_systems: Annotated[
        Mapping[str, FileSystem], Fact(path="fileSystems", parse_entry=FileSystem.parse)
    ]
    swap_devices: Annotated[
        tuple[str, ...],
        Fact(path="swapDevices", parse=lambda v: tuple(d for d in v if d is not None), absent=()),
    ]
    luks_devices: Annotated[
        tuple[str, ...],
        Fact(path="boot.initrd.luks.devices", parse=tuple, absent=(), compared=False),
    ]
    initrd_text: Annotated[str, Fact(path="boot.initrd", absent="", compared=False)]
    warnings: Annotated[
        tuple[str, ...], Fact(path="warnings", parse=tuple, absent=(), compared=False)
    ]
    vm: Annotated[
        VmSettings | None,
        Fact(
            path="virtualisation.vmVariant.virtualisation", parse=VmSettings.parse, compared=False
        ),
    ]
    secrets: Annotated[
        Secrets,
        Fact(path="sops.secrets", parse=Secrets.parse, absent=Secrets(), compared=False),
    ]
    options: Mapping[str, Declared]
    changed: Mapping[str, tuple[Json, Json]]
    derivation: str
    program: str
    output: str = ""
    toplevel: str = ""
    backend: str = "vm"
    snapshot_refusal: str = "it was not asked for"
    unreadable: tuple[str, ...] = ()
    own_services: frozenset[str] | None = None
    image: str = ""
    where: Mapping[str, Definitions] = msgspec.field(default_factory=dict)
    machine_file_systems: Mapping[str, FileSystem] | None = None
    machine_swap_devices: tuple[str, ...] | None = None
    cards: tuple[Card, ...] = ()
    orphan_vlans: tuple[str, ...] = ()
    guest_system: str = ""
    own_disks: bool = False
    machine_tpm: bool = False
    swap: Annotated[
        tuple[SwapDevice, ...],
        Fact(path="swapDevices", parse=SwapDevice.parse_all, absent=(), compared=False),
    ] = ()
    luks: Annotated[
        Mapping[str, LuksDevice],
        Fact(
            path="boot.initrd.luks.devices",
            parse=LuksDevice.parse_all,
            absent=MappingProxyType({}),
            compared=False,
        ),
    ] = msgspec.field(default_factory=dict)
    initrd_ssh: Annotated[
        InitrdSsh | None,
        Fact(path="boot.initrd.network.ssh", parse=InitrdSsh.parse, compared=False),
    ] = None
    swraid: Annotated[
        SoftwareRaid | None,
        Fact(path="boot.swraid", parse=SoftwareRaid.parse, compared=False),
    ] = None
    crypttab: Annotated[str, Fact(path="environment.etc.crypttab", absent="", compared=False)] = ""
    tunnels: Annotated[
        tuple[Tunnel, ...],
        Fact(
            path="networking.wireguard.interfaces",
            parse=parse_tunnels,
            absent=(),
            compared=False,
        ),
    ] = ()
    disko: Annotated[
        Mapping[str, Json],
        Fact(path="disko.devices", absent=MappingProxyType({}), compared=False),
    ] = msgspec.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The attribute name under ``nixosConfigurations``, or among the nodes of a NixOS test."""
        return self.ref.attr

    @property
    def is_test_node(self) -> bool:
        """Whether it is a node of a NixOS test, which is a VM already, with a root shell of its
        test's.
        """
        return isinstance(self.ref.flake, NixosTestRef)

    @property
    def home_user(self) -> str | None:
        """Whose home it is, where the host is a home of ``homeConfigurations`` on a plain machine;
        ``None`` otherwise.
        """
        if not isinstance(self.ref.flake, HomesRef):
            return None
        return next((user.name for user in self.users.values() if user.is_normal), None)

    @property
    def unit_needs(self) -> tuple[UnitNeed, ...]:
        """Files that units cannot start without, those of disabled units left out."""
        return tuple(
            need for unit in self.units.values() if unit.enabled for need in needs_of(unit)
        )

    def units_naming(self, path: str) -> tuple[str, ...]:
        """Return the units whose files name a path, in order of name."""
        return tuple(sorted(u.name for u in self.units.values() if names_path(u, path)))

    def option(self, path: str) -> Declared:
        """Return one option that was asked for at evaluation; others count as ``absent``."""
        return self.options.get(path, Declared(path=path, state="absent"))


@cache
def host_facts() -> Mapping[str, Fact]:
    """Return the facts of a host by field of :class:`HostConfig`; the document of an evaluation
    names them so too.
    """
    hints = get_type_hints(HostConfig, include_extras=True)
    return {
        name: fact
        for name, hint in hints.items()
        for fact in getattr(hint, "__metadata__", ())
        if isinstance(fact, Fact)
    }


def parse_host_config(
    ref: HostRef,
    document: Mapping[str, Json],
    *,
    option_paths: Sequence[str],
    where: Sequence[str] = (),
) -> HostConfig:
    """Read one host's document.

    :param document: what ``nix/expressions/host-config.nix`` returns.
    :param option_paths: the paths that were asked for, in the document's order.
    :param where: the paths whose definitions were asked for, in the document's order.
    """
    declared, in_machine = document["facts"], document["machineFacts"]
    options = _options(option_paths, document["options"])
    snapshot = document.get("snapshot") or _NO_SNAPSHOT
    network = document.get("network") or {"cards": (), "orphans": ()}
    return HostConfig(
        ref=ref,
        backend=document["backend"],
        system=document["system"],
        guest_system=document.get("guestSystem") or document["system"],
        **{name: _value(fact, declared.get(name)) for name, fact in host_facts().items()},
        options=options,
        changed={
            **_changed_facts(declared, in_machine),
            **_changed_units(declared, in_machine),
            **_changed_vm(declared, in_machine),
            **(_NO_BOOT_LOADER if document.get("withoutBootLoader") else {}),
            **_changed_options(options, _options(option_paths, document["machineOptions"])),
            **{path: (before, after) for path, (before, after) in snapshot["changed"].items()},
        },
        unreadable=_unreadable(declared),
        own_services=_own_services(document.get("ownServices")),
        image=document["image"],
        machine_file_systems=_value(host_facts()["file_systems"], in_machine.get("file_systems")),
        machine_swap_devices=_value(host_facts()["swap_devices"], in_machine.get("swap_devices")),
        own_disks=bool(document.get("ownDisks")),
        machine_tpm=bool(document.get("tpm")),
        derivation=document["derivation"],
        output=document["output"],
        toplevel=document["toplevel"],
        program=document["program"],
        snapshot_refusal=snapshot["refusal"],
        cards=tuple(Card.parse(card) for card in network["cards"]),
        orphan_vlans=tuple(network["orphans"]),
        where=_where(where, document.get("where") or ()),
    )


def _own_services(names: Sequence[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(f"{name}.service" for name in names)


def _value(fact: Fact, answer: Json) -> Any:
    """Return the value of a field from the document's answer, ``None`` if the evaluation left
    the fact out.
    """
    if fact.parse_entry is not None:
        return _entries(fact.parse_entry, answer or {})
    if not answer or not answer["readable"]:
        return fact.absent
    value = fact.parse(answer["value"]) if answer["value"] is not None else None
    return fact.absent if value is None else value


def _entries(
    parse: Callable[[str, Json], Any], answers: Mapping[str, Mapping[str, Json]]
) -> dict[str, Any]:
    """Read those entries that can be read; one that is null is not set."""
    return {
        name: parse(name, answer["value"])
        for name, answer in answers.items()
        if answer["readable"] and answer["value"] is not None
    }


def _unreadable(declared: Mapping[str, Json]) -> tuple[str, ...]:
    paths = []
    for name, fact in host_facts().items():
        if name not in declared:
            paths.append(fact.path)
        elif fact.parse_entry is not None:
            answers = declared[name].items()
            paths += [sub_path(fact.path, key) for key, a in answers if not a["readable"]]
        elif not declared[name]["readable"]:
            paths.append(fact.path)
    return tuple(sorted(set(paths)))


def _options(paths: Sequence[str], answers: Sequence[Json]) -> dict[str, Declared]:
    return {
        path: Declared(path=path, state=answer["state"], value=answer.get("value"))
        for path, answer in zip(paths, answers, strict=True)
    }


def _where(paths: Sequence[str], answers: Sequence[Json]) -> dict[str, Definitions]:
    return {
        path: Definitions.parse(answer)
        for path, answer in zip(paths, answers, strict=bool(answers))
        if answer is not None
    }


def _changed_facts(
    declared: Mapping[str, Json], in_machine: Mapping[str, Json]
) -> dict[str, tuple[Json, Json]]:
    changed: dict[str, tuple[Json, Json]] = {}
    for name, fact in host_facts().items():
        if fact.compared and name in declared:
            ours, theirs = (_plain(fact, answers[name]) for answers in (declared, in_machine))
            changed |= differences(fact.path, ours, theirs)
    return changed


def _plain(fact: Fact, answer: Json) -> Json:
    if fact.parse_entry is not None:
        return {key: entry["value"] for key, entry in answer.items()}
    return answer["value"] if answer["readable"] else None


def _changed_units(
    declared: Mapping[str, Json], in_machine: Mapping[str, Json]
) -> dict[str, tuple[Json, Json]]:
    if "units" not in declared:
        return {}
    path = host_facts()["units"].path
    ours = _entries(Unit.parse, declared["units"])
    theirs = _entries(Unit.parse, in_machine["units"])
    changed: dict[str, tuple[Json, Json]] = {
        sub_path(path, name): (ours[name].plain(), None)
        for name in sorted(ours.keys() - set(in_machine["unitNames"]))
    }
    for name, unit in theirs.items():
        before = ours[name].plain() if name in ours else None
        changed |= differences(sub_path(path, name), before, unit.plain())
    return changed


def _changed_vm(
    declared: Mapping[str, Json], in_machine: Mapping[str, Json]
) -> dict[str, tuple[Json, Json]]:
    """Compare what the host's own VM variant asks for with what the machine has."""
    ours, theirs = (answers.get("vm") for answers in (declared, in_machine))
    if not (ours and theirs and ours["readable"] and theirs["readable"]):
        return {}
    if ours["value"]["memorySize"] is None:
        return {}
    return differences("virtualisation", ours["value"], theirs["value"])


def _changed_options(
    ours: Mapping[str, Declared], theirs: Mapping[str, Declared]
) -> dict[str, tuple[Json, Json]]:
    return {
        path: (declared.value, theirs[path].value)
        for path, declared in ours.items()
        if (declared.state, declared.value) != (theirs[path].state, theirs[path].value)
    }
