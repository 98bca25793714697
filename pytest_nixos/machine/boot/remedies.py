"""What to do about a machine that did not come up or went away, by what its console and its end
show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

__all__ = ["VM_REMEDIES", "Remedies"]

_DEFAULT = "read the console lines above for the first thing that went wrong"
# What is the cause where several kinds of trouble were seen.
_CAUSES = ("root device not found", "out of memory")


class Remedies(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend advises.

    :param by_kind: kind of :class:`~pytest_nixos.machine.boot_signs.Trouble`, or of the end, to its
        remedy.
    :param by_words: words of a console line and the remedy where one has them; the first that fits
        is told.
    :param default: told where nothing else is known.
    :param gone: told in its place of a machine that had come up and is gone.
    """

    by_kind: Mapping[str, str] = msgspec.field(default_factory=dict)
    by_words: tuple[tuple[str, str], ...] = ()
    default: str = _DEFAULT
    gone: str = _DEFAULT

    def known(self, kind: str) -> bool:
        """Whether a kind of trouble has a remedy of its own."""
        return kind in self.by_kind

    def choose(self, *kinds: str, lines: Iterable[str] = ()) -> str:
        """Return the remedy of the first kind that has one, else of the first words that a line
        holds.

        :param kinds: in the order of their weight; causes still go before what follows from them.
        """
        ranked = sorted(kinds, key=lambda kind: kind not in _CAUSES)
        tail = tuple(lines)
        found = (self.by_kind[kind] for kind in ranked if kind in self.by_kind)
        said = (text for words, text in self.by_words if any(words in line for line in tail))
        return next(found, "") or next(said, self.default)


VM_REMEDIES = Remedies(
    by_kind={
        "kernel panic": (
            "read the panic's first line: a missing or killed init points to the root file system or to the "
            "toplevel, a device to boot.initrd.availableKernelModules"
        ),
        "out of memory": "give the machine more memory: virtualisation.vmVariant.virtualisation.memorySize",
        "root device not found": (
            "compare fileSystems of the host with the disks that its VM has (virtualisation.fileSystems)"
        ),
        "stage 1 failed": (
            "compare fileSystems and boot.initrd of the host with the disks that its VM has; "
            "virtualisation.fileSystems overrides them in the VM alone"
        ),
        "own disks failed": (
            "the line above names the command that failed; --nixos-disks default leaves the host's own disks out"
        ),
        "file system check failed": "the machine's disk is new in each run: look for a file system that the host makes",
        "emergency mode": (
            "look above for the unit that failed, often a mount: declare it nofail or override "
            "virtualisation.fileSystems for the VM"
        ),
        "rescue mode": "look for systemd.unit=rescue.target or a failed unit that leads to it",
        "systemd crashed": "look at systemd's own lines above; report it if the host's config is sound",
        "stuck unit": "give the unit a TimeoutStartSec, or keep it from starting in the VM (virtualisation.vmVariant)",
        "host machine: disk full": "free space where the run directory lies, or set TMPDIR to another disk",
        "host machine: address in use": (
            "another program has a port that the host forwards (virtualisation.forwardPorts, QEMU_NET_OPTS)"
        ),
        "host machine: out of memory": "lower the machine's memory or run fewer machines at once",
        "KVM unusable": "run with TCG, or repair KVM on this machine; `python -m pytest_nixos doctor` tells more",
        "waits for a passphrase": "nobody can type it here: leave the encrypted disk out of virtualisation.fileSystems",
        "guest rebooted": "look above for what rebooted it during the boot",
        "guest powered off": "look above for what powered it off during the boot",
        "QEMU was killed": (
            "find out who killed QEMU on this machine: a person, a job limit, or the kernel for want of memory"
        ),
        "QEMU was told to end": "find out who ended QEMU on this machine",
    }
)
