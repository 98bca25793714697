"""Conditions of units that can never hold, since what they name does not exist: systemd skips the unit without
a word.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pytest_nixos import Unit, parse_boolean

from .remedies import unit_option

__all__ = ["ImpossibleCondition", "impossible_conditions"]

# systemd.unit(5), "Conditions and Asserts", of systemd 254 to 257.
_KNOWN: Mapping[str, str] = {
    "Architecture": (
        "native x86 x86-64 ppc ppc-le ppc64 ppc64-le ia64 parisc parisc64 s390 s390x sparc sparc64 mips mips-le mips64 "
        "mips64-le alpha arm arm-be arm64 arm64-be sh sh64 m68k tilegx cris arc arc-be loongarch64 riscv32 riscv64 nios2"
    ),
    "Virtualization": (
        "vm container private-users qemu kvm amazon zvm vmware microsoft oracle powervm xen bochs uml parallels bhyve qnx acrn "
        "apple sre google vm-other openvz lxc lxc-libvirt systemd-nspawn docker podman rkt wsl proot pouch container-other"
    ),
    "Security": "selinux apparmor tomoyo smack ima audit uefi-secureboot tpm2 cvm measured-uki",
}
_CONDITION = re.compile(r"(?:Condition|Assert)(?P<kind>[A-Z]\w+)")
# What the kernel, Nix, Debian or people call what systemd calls otherwise.
_ELSEWHERE = {
    "aarch64": "arm64",
    "amd64": "x86-64",
    "x64": "x86-64",
    "i686": "x86",
    "i386": "x86",
    "hyperv": "microsoft",
    "hyper-v": "microsoft",
    "virtualbox": "oracle",
    "nspawn": "systemd-nspawn",
    "secureboot": "uefi-secureboot",
    "secure-boot": "uefi-secureboot",
}
_ALIKE = 0.65


class ImpossibleCondition(NamedTuple):
    """A condition whose value nothing ever has.

    :param meant: what is to be written in its place, with the signs before it.
    """

    unit: str
    key: str
    value: str
    meant: str

    def __str__(self) -> str:
        return f"{self.unit}: {self.key}={self.value} is nothing that systemd knows (meant: {self.meant}?)"

    @property
    def remedy(self) -> str:
        """Module text with what is meant."""
        return f'{unit_option(self.unit)}.unitConfig.{self.key} = lib.mkForce "{self.meant}";'


def impossible_conditions(unit: Unit) -> Iterator[ImpossibleCondition]:
    """Yield the conditions of a unit that name a value which does not exist."""
    for key, values in unit.settings.get("Unit", {}).items():
        match = _CONDITION.fullmatch(key)
        known = _KNOWN.get(match["kind"], "").split() if match else []
        for value in values if known else ():
            sign = value[: len(value) - len(value.lstrip("|!"))]
            word = value[len(sign) :].strip()
            if word in known or parse_boolean(word) is not None:
                continue
            if meant := _meant(word, known):
                yield ImpossibleCondition(unit.name, key, value, f"{sign}{meant}")


def _meant(word: str, known: Sequence[str]) -> str:
    """Return the value that a word nearly names; ``""`` for one that a later systemd may know."""
    if word in _ELSEWHERE:
        return _ELSEWHERE[word]
    near = difflib.get_close_matches(word.lower().replace("_", "-"), known, n=1, cutoff=_ALIKE)
    return near[0] if near else ""
