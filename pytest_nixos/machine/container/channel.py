"""The root command channel of a container: the same server as a VM's, as a unit of the guest's
own manager.

Commands are children of a service of the guest, so they have its capabilities, its system call
filter, its control group and its namespaces, and no more. Nothing of this machine enters the
container. What the guest gets is one read-only directory: the server, its unit and named pipes that
it cannot replace.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.base import SecretArchive
from pytest_nixos.machine.channel.links import FifoLink
from pytest_nixos.machine.channel.protocol import guest_script
from pytest_nixos.machine.channel.transport import PORTS

__all__ = [
    "GUEST_DIRECTORY",
    "SECRETS",
    "SPOOL_DIRECTORY",
    "UNITS",
    "UNIT_DIRECTORY",
    "open_links",
    "prepare_channel",
]

#: Where the channel's server keeps what commands print until it is sent, see guest_channel.bash.
SPOOL_DIRECTORY = "/run/pytest-nixos"
#: Where the guest sees the directory.
GUEST_DIRECTORY = "/run/pytest-nixos-channel"
#: A place of systemd's search path for units that come and go at run time (portable services), and
#: that NixOS does not use.
UNIT_DIRECTORY = "/run/systemd/system.attached"
#: Name of the archive with the host's secrets, inside the directory of the channel;
#: ``expressions/test-secrets.nix`` names it too.
SECRETS = "secrets.tar"
#: Name of the directory with the unit, inside the directory of the channel.
UNITS = "units"

_UNIT = "pytest-nixos-channel.service"
_TARGETS = ("sysinit.target", "emergency.target", "rescue.target")
# The same as in nix/expressions/instrumentation.nix, which says why. The shell is searched for: a
# generation whose activation failed has no /run/current-system.
_TEXT = """\
[Unit]
Description=Root command channel of pytest-nixos
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
Type=simple
ExecSearchPath={path}
ExecStart=bash {directory}/channel.bash
Environment=PATH={path}
Environment=PYTEST_NIXOS_PORTS={directory}/ports PYTEST_NIXOS_DEVICES={directory}
Restart=always
RestartSec=200ms
KillMode=control-group
TimeoutStopSec=5s
Slice=-.slice
TasksMax=infinity
LimitNOFILE=65536:524288
OOMScoreAdjust=-1000
OOMPolicy=continue
IgnoreSIGPIPE=no
UMask=0022
"""
_SYSTEM = "/run/current-system/sw/bin"
_OTHERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def prepare_channel(directory: Path, toplevel: Path, secrets: SecretArchive | None = None) -> None:
    """Write what the guest gets, but for the named pipes.

    :param directory: of this machine, to be made.
    :param toplevel: the host's; where its ``sw`` has bash is where the guest finds it before its
        activation too.
    :param secrets: for the host's activation.
    :raises MachineError: if it cannot be written.
    """
    path = ":".join((_SYSTEM, *_own_programs(toplevel), *_OTHERS))
    try:
        directory.mkdir(mode=0o755)
        (directory / "channel.bash").write_text(guest_script())
        if secrets is not None:
            archive = directory / SECRETS
            archive.touch(mode=0o400)
            archive.write_bytes(secrets.path.read_bytes())
        for port in PORTS:
            entry = directory / "ports" / port
            entry.mkdir(mode=0o755, parents=True)
            (entry / "name").write_text(f"pytest-nixos.{port}\n")
        units = directory / UNITS
        units.mkdir(mode=0o755)
        (units / _UNIT).write_text(_TEXT.format(path=path, directory=GUEST_DIRECTORY))
        for target in _TARGETS:
            wants = units / f"{target}.wants"
            wants.mkdir(mode=0o755)
            (wants / _UNIT).symlink_to(f"../{_UNIT}")
    except OSError as err:
        raise MachineError(
            f"{directory}: the container's channel cannot be made: {err.strerror}",
            remedy="free some space there, or set TMPDIR to a directory with room",
        ) from err


def open_links(directory: Path, stack: ExitStack) -> Mapping[str, FifoLink]:
    """Open the named pipes of all ports.

    :param directory: with the pipes; no part of its path may be the guest's to change.
    :raises MachineError: if they are not there.
    """
    links = {}
    for port in PORTS:
        try:
            links[port] = FifoLink(directory, port)
        except OSError as err:
            raise MachineError(
                f"{directory}: the container's channel cannot be opened: {err.strerror}",
                remedy="look at the console: the container has probably ended",
            ) from err
        stack.callback(links[port].close)
    return links


def _own_programs(toplevel: Path) -> tuple[str, ...]:
    """Return where bash and coreutils of a toplevel lie in the store."""
    found = []
    for name in ("bash", "mkdir"):
        try:
            found.append(str((toplevel / "sw/bin" / name).resolve(strict=True).parent))
        except OSError:
            continue
    return tuple(dict.fromkeys(place for place in found if place.startswith("/nix/store/")))
