"""A host's disks as disko's own ``disko.devices`` declares them.

disko derives ``fileSystems``, ``swapDevices`` and LUKS devices from that, which say neither which
disk a partition is on, nor its type, nor what nothing mounts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_nixos.machine.disks.arrays import DeclaredArray
from pytest_nixos.machine.disks.placing import Place, cannot, is_plain, scsi_names
from pytest_nixos.machine.disks.plan import DiskPlan
from pytest_nixos.machine.disks.volumes import MAKEABLE
from pytest_nixos.nix.config.declared import LuksDevice
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["take_disko"]

Json = Mapping[str, Any]

# sgdisk's codes, gptfdisk parttypes.cc.
_GUIDS = {
    "8200": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    "8300": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "8302": "933AC7E1-2EB4-4F13-B844-0E14E2AEF915",
    "8304": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "8309": "CA7D7CCB-63ED-4C53-861C-1742536059CC",
    "8E00": "E6D6D379-F507-44C2-A23C-238F2A3DF928",
    "BF00": "6A82CB45-1DD2-11B2-99A6-080020736631",
    "BF01": "6A898CC3-1DD2-11B2-99A6-080020736631",
    "EA00": "BC13C2FF-59E6-4262-A352-B275FD6F7172",
    "EF00": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "EF02": "21686148-6449-6E6F-744E-656564454649",
    "FD00": "A19D880F-05FC-4D3B-A006-743F0F84911E",
}
_LABEL_FLAGS = frozenset({"-L", "-n", "--label"})
_LINEAR = frozenset({"", "linear", "thin-pool", "thinlv"})


def take_disko(host: HostConfig, plan: DiskPlan) -> tuple[str, ...]:
    """Put what disko makes into `plan`; nothing where the host does not use it.

    :return: what is made in another way than disko would.
    :raises MachineError: if it makes what cannot be made here.
    """
    if not host.disko:
        return ()
    if pools := host.disko["pools"]:
        raise cannot(
            host, f"disko.devices.zpool.{pools[0]} is zfs, which the VM's stage 1 cannot make"
        )
    return tuple(_Tree(host, plan).take())


class _Tree:
    def __init__(self, host: HostConfig, plan: DiskPlan) -> None:
        self._host = host
        self._plan = plan
        self._members: dict[str, list[str]] = {}
        self._told: list[str] = []

    def take(self) -> Sequence[str]:
        disks: Sequence[Json] = self._host.disko["disks"]
        names = dict(zip((d["name"] for d in disks), _kernel_names(disks), strict=True))
        for disk in disks:
            self._disk(disk, names[disk["name"]])
        for array in self._host.disko["arrays"]:
            self._array(array)
        for group in self._host.disko["groups"]:
            for volume in group["volumes"]:
                self._logical(group["name"], volume)
        return self._told

    def _disk(self, disk: Json, name: str) -> None:
        who, content = f"disko.devices.disk.{disk['name']}", disk["content"]
        if content is None:
            return
        if content["type"] == "table":
            raise cannot(
                self._host,
                f"{who} has an MBR by disko's type table, which disko itself has given up for gpt",
                'use type = "gpt"',
            )
        if content["type"] != "gpt":
            if is_plain(disk["device"]) != disk["device"].removeprefix("/dev/"):
                raise cannot(
                    self._host,
                    f"{who} is {disk['device']} and holds {content['type']} without partitions, so that"
                    " the host names it by a path that no disk of a VM can have",
                    "give it a table (type gpt): its partitions are named by label",
                )
            self._content(content, disk["device"], who)
            return
        for number, partition in enumerate(content["partitions"], start=1):
            self._partition(
                partition, number, name, f"{who}.content.partitions.{partition['name']}"
            )

    def _partition(self, partition: Json, number: int, disk: str, who: str) -> None:
        code = partition["type"]
        guid = _GUIDS.get(code.upper(), code if "-" in code else "")
        if not guid:
            self._told.append(f"{partition['label']} has the type 8300, not {code}")
        place = Place(
            disk=disk,
            number=number,
            name=partition["label"],
            uuid=partition["uuid"],
            guid=guid or _GUIDS["8300"],
        )
        self._plan.place(partition["device"], place)
        if partition["content"] is None:
            self._plan.put(partition["device"], "nothing", who)
        else:
            self._content(partition["content"], partition["device"], who)

    def _array(self, array: Json) -> None:
        device, members = f"/dev/md/{array['name']}", self._members.get(array["name"], ())
        who = f"disko.devices.mdadm.{array['name']}"
        if not members:
            raise cannot(
                self._host,
                f"{who} has no members",
                f'give a partition content = {{ type = "mdraid"; name = "{array["name"]}"; }}',
            )
        level = array["level"]
        declared = DeclaredArray(
            device=device,
            # mdadm --homehost=any, as disko makes it.
            name=f"any:{array['name']}",
            level=f"raid{level}" if level.isdigit() else level,
            metadata="1.2" if array["metadata"] in ("", "default") else array["metadata"],
            members=tuple(members),
            count=len(members),
        )
        self._plan.array(declared)
        if array["content"] is not None:
            self._content(array["content"], device, who)

    def _logical(self, group: str, volume: Json) -> None:
        who = f"disko.devices.lvm_vg.{group}.lvs.{volume['name']}"
        if volume["lvm_type"] not in _LINEAR:
            self._told.append(f"{group}/{volume['name']} is linear, not {volume['lvm_type']}")
        if volume["lvm_type"] == "thin-pool":
            return
        if volume["lvm_type"] == "thinlv":
            self._told.append(f"{group}/{volume['name']} is no thin volume")
        if volume["content"] is not None:
            self._content(volume["content"], f"/dev/{group}/{volume['name']}", who)

    def _content(self, content: Json, device: str, who: str) -> None:
        match content["type"]:
            case "filesystem":
                self._file_system(content["format"], content, device, who)
            case "btrfs":
                if several := next((a for a in content["extraArgs"] if "/dev/" in a), ""):
                    raise cannot(self._host, f"{who} is btrfs on several devices ({several})")
                self._file_system("btrfs", content, device, who)
            case "swap":
                self._plan.put(device, "empty" if content["randomEncryption"] else "swap", who)
            case "luks":
                self._plan.open(LuksDevice(name=content["name"], device=device))
                if content["content"] is not None:
                    self._content(content["content"], f"/dev/mapper/{content['name']}", who)
            case "lvm_pv":
                self._plan.group_on(content["vg"], device)
            case "mdraid":
                self._members.setdefault(content["name"], []).append(device)
            case "gpt" | "table":
                raise cannot(
                    self._host, f"{who} has a partition table, which only a disk can have here"
                )
            case kind:
                raise cannot(self._host, f"{who} is {kind}, which the VM's stage 1 cannot make")

    def _file_system(self, kind: str, content: Json, device: str, who: str) -> None:
        if kind not in MAKEABLE:
            raise cannot(self._host, f"{who} is {kind}, which the VM's stage 1 cannot make")
        subvolumes = [name.strip("/") for name in content["subvolumes"]]
        self._plan.put(device, kind, who, *subvolumes, label=_label(content["extraArgs"]))


def _kernel_names(disks: Sequence[Json]) -> Iterator[str]:
    """Yield the name of each disk in the VM: the one it is declared by, else a free one."""
    said = [is_plain(disk["device"]) for disk in disks]
    free = (name for name in ("vda", *scsi_names()) if name not in said)
    for disk, name in zip(disks, said, strict=True):
        yield name if name and disk["device"] == f"/dev/{name}" else next(free)


def _label(arguments: Sequence[str]) -> str:
    """Return the label that arguments of mkfs give, ``""`` for none."""
    words = [word for argument in arguments for word in re.split(r"\s+", argument.strip())]
    return next((b for a, b in itertools.pairwise(words) if a in _LABEL_FLAGS), "")
