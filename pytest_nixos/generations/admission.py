"""How a toplevel gets into a guest's store without any network, and what is refused at the door."""

from __future__ import annotations

import shlex
from pathlib import Path

from pytest_nixos.errors import GenerationError
from pytest_nixos.generations.bridge import StoreBridge
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.command import CommandResult

__all__ = ["admit", "checked", "refuse_foreign", "run_guest"]

LIMIT_S = 600.0
# Says of store paths on standard input which are not there, and which Nix does not know although they are.
_LACKING = r"""
set -o pipefail
there=()
while read -r path; do
  if [ -e "$path" ]; then there+=("$path"); else printf 'absent %s\n' "$path"; fi
done
printf '%s\n' "${there[@]}" | xargs nix-store --check-validity --print-invalid | sed 's/^/unknown /'
"""


def run_guest(machine: Machine, command: str, *, stdin: bytes = b"") -> CommandResult:
    """Run a command that may take minutes in an emulated guest."""
    limit_s = machine.deadline(LIMIT_S).limit_s
    return machine.run(command, timeout_s=limit_s, stdin=stdin)


def checked(machine: Machine, command: str, *, stdin: bytes = b"") -> CommandResult:
    """Run a command that must succeed.

    :raises GenerationError: if it does not.
    """
    result = run_guest(machine, command, stdin=stdin)
    if not result.succeeded:
        raise GenerationError(
            f"{machine.name}: {command!r} ended with {result.exit_status}: "
            f"{result.stderr_text.strip() or result.stdout_text.strip()}",
            remedy="the host must run its own Nix (nix.enable) for generations to be tested in it",
        )
    return result


def admit(machine: Machine, bridge: StoreBridge, toplevel: Path) -> None:
    """Make `toplevel` valid in the guest: register what it sees already, send what it lacks.

    :raises GenerationError: if the guest's Nix refuses.
    """
    listed = "\n".join(str(path) for path in bridge.closure(toplevel)).encode() + b"\n"
    told = [
        line.partition(" ")
        for line in checked(machine, _LACKING, stdin=listed).stdout_text.splitlines()
    ]
    if absent := [Path(path) for what, _, path in told if what == "absent"]:
        checked(machine, "nix-store --import >/dev/null", stdin=bridge.export(absent))
    if unknown := [Path(path) for what, _, path in told if what == "unknown"]:
        # A container's login environment says NIX_REMOTE=daemon, and a daemon refuses to load a
        # database.
        register = "NIX_REMOTE=local nix-store --load-db"
        checked(machine, register, stdin=bridge.registration(unknown))


def refuse_foreign(machine: Machine, toplevel: str) -> None:
    """Refuse a store path that is not there, is no NixOS system, or is one of another architecture.

    :raises GenerationError: naming what it is instead; nothing has been changed.
    """
    path = shlex.quote(toplevel)
    look = f"[ -e {path} ] && echo there; [ -x {path}/bin/switch-to-configuration ] && echo system; cat {path}/system 2>/dev/null"
    answer = run_guest(machine, look).stdout_text.split()
    if "there" not in answer:
        raise GenerationError(
            f"{machine.name}: {toplevel} is in neither this machine's store nor the guest's",
            remedy="build it first, or give its module, host or flake instead of the store path",
        )
    if "system" not in answer:
        raise GenerationError(
            f"{machine.name}: {toplevel} is not a NixOS system: no bin/switch-to-configuration in it",
            remedy="name a toplevel: config.system.build.toplevel of a host, with system.switch.enable",
        )
    systems = [word for word in answer if word not in ("there", "system")]
    ours = machine.spec.host.guest_system
    if systems and ours and systems[0] != ours:
        raise GenerationError(
            f"{machine.name}: {toplevel} is a {systems[0]} system, and this machine is {ours}",
            remedy="build the generation for the machine's own architecture",
        )
