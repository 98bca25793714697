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
    #: a VM that a NixOS test has started, reached through its driver
    TEST_DRIVER = "test-driver"

    @property
    def place(self) -> str:
        """Where it runs, as far as it matters to what can be judged there: ``vm``,
        ``container``, ``bare-metal``.
        """
        return "bare-metal" if self is BackendName.SSH else self.kind.value

    @property
    def kind(self) -> BackendName:
        """The one of :data:`EVERYWHERE` as which it is judged."""
        a_vm = self in (BackendName.VM_WITH_BOOT_LOADER, BackendName.TEST_DRIVER)
        return BackendName.VM if a_vm else self

    @property
    def runs_already(self) -> bool:
        """Whether the machine is somebody else's: this session did not start it, and leaves it as
        it is.
        """
        return self in (BackendName.SSH, BackendName.TEST_DRIVER)

    @classmethod
    def named(cls, word: str) -> BackendName:
        """Read a word of a marker, an option or the catalogue.

        :raises ValueError: if it is none.
        """
        return cls.SSH if word == "bare-metal" else cls(word)


# The ways that differ in what can be judged.
EVERYWHERE = frozenset({BackendName.VM, BackendName.CONTAINER, BackendName.SSH})
