"""Kinds about mounts: one, and declared file systems that are not mounted as they should be."""

from __future__ import annotations

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.filesystems.mount import Mount, MountTable, mounts
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import NEEDED, Kind, Parameter, Parameters

__all__ = ["KINDS"]


def _mount(table: MountTable, parameters: Parameters, _: HostConfig) -> Sight:
    if not table.mounts:
        return Unseen("the mounts could not be read")
    mount = table.at(str(parameters["target"]))
    if mount is None:
        return Seen(None)
    match parameters.get("field", "options"):
        case "fs-type":
            return Seen(mount.filesystem)
        case "source":
            return Seen(mount.source)
        case _:
            return Seen(_options(mount))


def _options(mount: Mount) -> list[str]:
    """Return the options of the mount and of its file system; a read-only mount of a writable
    one is read-only.
    """
    options = [*mount.options, *(o for o in mount.super_options if o not in mount.options)]
    return [o for o in options if o != "rw" or not mount.is_read_only]


#: Options that only mean something to mount(8), fstab(5) or systemd, and never show on a mount.
_INVISIBLE = (
    "x-",
    "_netdev",
    "nofail",
    "defaults",
    "auto",
    "noauto",
    "user",
    "bind",
    "loop",
    "mode=",
)


def _mount_declared(table: MountTable, _: Parameters, host: HostConfig) -> Sight:
    if not table.mounts:
        return Unseen("the mounts could not be read")
    wrong = []
    for target, declared in host.file_systems.items():
        if host.own_disks and target not in (host.machine_file_systems or ()):
            continue  # it lies on another machine
        mount = table.at(target)
        if mount is None:
            if host.own_disks and "nofail" in declared.options:
                continue
            if "noauto" not in declared.options and declared.fs_type != "none":
                wrong.append(f"{target} is not mounted")
            continue
        if declared.fs_type not in ("auto", "none", mount.filesystem):
            wrong.append(f"{target} is {mount.filesystem}, declared {declared.fs_type}")
        lacking = [
            option
            for option in declared.options
            if not option.startswith(_INVISIBLE)
            and "=" not in option
            and option not in _options(mount)
        ]
        if lacking:
            wrong.append(f"{target} lacks {', '.join(lacking)}")
    return Seen(wrong)


KINDS = (
    Kind(
        name="mount",
        reads="mounted file systems",
        probe=lambda _, __: mounts(),
        find=_mount,
        parameters={
            "target": NEEDED,
            "field": Parameter(choices=("options", "fs-type", "source")),
        },
    ),
    Kind(
        name="mount-declared",
        reads="`fileSystems` entries that are not mounted as declared",
        probe=lambda _, __: mounts(name="mount-declared"),
        find=_mount_declared,
        options=lambda _: ("fileSystems",),
    ),
)
