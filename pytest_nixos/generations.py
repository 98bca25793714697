"""The generations of a running machine: build, switch, roll back, and what each step did.

A generation to switch to is the toplevel of the machine's own variant plus a module delta, so that nothing that
the machine lives on (its file systems, its command channel) goes away. Exit codes and links are those of
``switch-to-configuration`` and ``nix-env``, see nixos/modules/system/activation in nixpkgs.
"""

from __future__ import annotations

import enum
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_nixos.errors import GenerationError
from pytest_nixos.machine.base import CommandResult, Machine

__all__ = ["Generations", "StoreBridge", "SwitchOutcome", "Verb"]

_PROFILE = "/nix/var/nix/profiles/system"
_SWITCH_LIMIT_S = 600.0
_MEANINGS = {
    0: "done",
    1: "usage, boot loader, or a failure before the switch",
    2: "the activation script failed",
    3: "systemd could not be reloaded",
    4: "switched, and units failed",
    100: "not switched: the init interface differs, a reboot is needed",
}


class Verb(enum.Enum):
    """Actions of ``switch-to-configuration``."""

    SWITCH = "switch"
    BOOT = "boot"
    TEST = "test"
    DRY_ACTIVATE = "dry-activate"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOutcome:
    """How one activation ended.

    :param toplevel: store path that was activated.
    :param output: what ``switch-to-configuration`` said, both streams.
    """

    verb: Verb
    toplevel: str
    exit_status: int
    output: str

    @property
    def switched(self) -> bool:
        """Whether the system changed, even if units failed afterwards."""
        return self.exit_status in (0, 4)

    @property
    def meaning(self) -> str:
        """The exit status in words."""
        return _MEANINGS.get(self.exit_status, "unknown")


class StoreBridge(Protocol):
    """The host machine's side: builds generations and exports what the guest lacks."""

    def build_generation(self, delta: str) -> Path:
        """Build the machine's toplevel with the module text `delta`."""
        ...

    def closure(self, path: Path) -> Sequence[Path]:
        """Return the store paths that `path` needs, itself included."""
        ...

    def registration(self, paths: Sequence[Path]) -> bytes:
        """Return what ``nix-store --load-db`` reads."""
        ...

    def export(self, paths: Sequence[Path]) -> bytes:
        """Return what ``nix-store --import`` reads."""
        ...


class Generations:
    """Generations of one machine; each change begins a new epoch of the machine."""

    def __init__(self, machine: Machine, bridge: StoreBridge) -> None:
        self._machine = machine
        self._bridge = bridge

    @property
    def current(self) -> str:
        """Toplevel that is active, a store path."""
        return self._resolved("/run/current-system")

    @property
    def profile(self) -> str:
        """Toplevel that the system profile links to, ``""`` if there is no profile yet."""
        return self._resolved(_PROFILE)

    def build(self, delta: str) -> str:
        """Build the machine's system with a module delta and bring it into the guest's store.

        :param delta: text of a NixOS module, for example ``{ boot.kernel.sysctl."vm.swappiness" = 11; }``.
        :return: its toplevel.
        :raises EvalError: if the delta does not evaluate.
        :raises BuildError: if it does not build.
        """
        toplevel = self._bridge.build_generation(delta)
        self._admit(toplevel)
        return str(toplevel)

    def set_profile(self, toplevel: str) -> None:
        """Make `toplevel` the newest generation of the system profile, as ``nixos-rebuild`` does first.

        :raises GenerationError: if ``nix-env`` refuses.
        """
        self._checked(f"nix-env --profile {_PROFILE} --set {shlex.quote(toplevel)}")

    def switch(self, toplevel: str) -> SwitchOutcome:
        """Add a generation and activate it, as ``nixos-rebuild switch`` does.

        The system that runs becomes a generation first, if the profile has none: a VM without boot loader
        starts without one, and there must be something to roll back to.
        """
        if not self.profile:
            self.set_profile(self.current)
        self.set_profile(toplevel)
        return self.activate(toplevel, Verb.SWITCH)

    def rollback(self) -> SwitchOutcome:
        """Go back to the previous generation, as ``nixos-rebuild switch --rollback`` does.

        :raises GenerationError: if there is no earlier generation.
        """
        self._checked(f"nix-env --profile {_PROFILE} --rollback")
        return self.activate(self.profile, Verb.SWITCH)

    def activate(self, toplevel: str, verb: Verb) -> SwitchOutcome:
        """Run ``switch-to-configuration`` of `toplevel`; the profile stays as it is."""
        program = shlex.quote(f"{toplevel}/bin/switch-to-configuration")
        # From /: an invalid working directory breaks the /etc step.
        result = self._run(f"cd / && {program} {verb.value} 2>&1")
        self._machine.invalidate()
        return SwitchOutcome(
            verb=verb,
            toplevel=toplevel,
            exit_status=result.exit_status,
            output=result.stdout_text,
        )

    def _admit(self, toplevel: Path) -> None:
        """Make `toplevel` valid in the guest: register what it sees already, send what it lacks."""
        closure = self._bridge.closure(toplevel)
        listed = "\n".join(str(path) for path in closure).encode()
        lacking = self._checked(
            'while read -r path; do [ -e "$path" ] || echo "$path"; done', stdin=listed + b"\n"
        )
        absent = [Path(line) for line in lacking.stdout_text.splitlines()]
        if absent:
            self._checked("nix-store --import >/dev/null", stdin=self._bridge.export(absent))
        unknown = self._checked(
            "xargs nix-store --check-validity --print-invalid", stdin=listed + b"\n"
        )
        if present := [Path(line) for line in unknown.stdout_text.splitlines()]:
            # A container's login environment says NIX_REMOTE=daemon, and a daemon refuses to load a database.
            register = "NIX_REMOTE=local nix-store --load-db"
            self._checked(register, stdin=self._bridge.registration(present))

    def _resolved(self, link: str) -> str:
        return self._run(f"readlink -e {link}").stdout_text.strip()

    def _checked(self, command: str, *, stdin: bytes = b"") -> CommandResult:
        result = self._run(command, stdin=stdin)
        if not result.succeeded:
            raise GenerationError(
                f"{self._machine.name}: {command!r} ended with {result.exit_status}: "
                f"{result.stderr_text.strip() or result.stdout_text.strip()}",
                remedy="the host must run its own Nix (nix.enable) for generations to be tested in it",
            )
        return result

    def _run(self, command: str, *, stdin: bytes = b"") -> CommandResult:
        return self._machine.run(command, timeout_s=_SWITCH_LIMIT_S, stdin=stdin)
