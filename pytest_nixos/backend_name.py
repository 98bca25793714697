"""How a machine runs: the one list of ways, for options, markers, backends, Nix and the
catalogue.
"""

from __future__ import annotations

import enum

__all__ = ["EVERYWHERE", "BackendName"]


class BackendName(enum.StrEnum):
    """How a machine runs; where a choice is left to the host (``--nixos-backend auto``), it is
    ``None``.

    Its value is the word of options and of :file:`machine.nix`; :attr:`place` is the catalogue's
    word.
    """

    VM = "vm"
    #: a VM with a disk and boot loader of its own, as a test may ask for it; its backend is the
    #: VM's
    VM_WITH_BOOT_LOADER = "boot-loader"
    CONTAINER = "container"
    #: a live host, reached by ssh
    SSH = "ssh"

    @property
    def place(self) -> str:
        """Where it runs, as far as it matters to what can be judged there: ``vm``,
        ``container``, ``bare-metal``.
        """
        match self:
            case BackendName.SSH:
                return "bare-metal"
            case BackendName.VM_WITH_BOOT_LOADER:
                return BackendName.VM.value
            case _:
                return self.value

    @classmethod
    def named(cls, word: str) -> BackendName:
        """Read a word of a marker, an option or the catalogue.

        :raises ValueError: if it is none.
        """
        return cls.SSH if word == "bare-metal" else cls(word)


# The ways that differ in what can be judged.
EVERYWHERE = frozenset({BackendName.VM, BackendName.CONTAINER, BackendName.SSH})
