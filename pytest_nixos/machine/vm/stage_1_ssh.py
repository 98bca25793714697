"""Unlocking over the network: somebody on the guest's wire logs in to the sshd of its stage 1 and
types the test key there.

Stage 1 gets keys of this machine's run, by the script that makes its disks: one that may log in as
root beside those of the config, and host keys in place of the config's, which no VM has.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pytest_nixos.errors import NixosError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot.events import BootEventKind
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.disks.script import TEST_KEY
from pytest_nixos.machine.network.prober import FrameProber
from pytest_nixos.machine.qemu.qmp import QmpMonitor, alone_with_guest
from pytest_nixos.nix.config.declared import InitrdSsh
from pytest_nixos.nix.config.host_facts import HostConfig

if TYPE_CHECKING:
    import asyncssh

__all__ = ["StageOneSsh", "unlocked"]

_OWN, _HOST = "stage-1-key", "stage-1-host-key"
# sshd's AuthorizedKeysFile is %h/.ssh/authorized_keys: the home of root in the scripted stage 1, and in systemd's.
_AUTHORIZED = ("/root/.ssh/authorized_keys", "/var/empty/.ssh/authorized_keys")
_BY_SCRIPT, _BY_SYSTEMD = "cryptsetup-askpass", "systemd-tty-ask-password-agent --query"
_ASKS = "assphrase"
_MOST_WORDS = 4096


class StageOneSsh(msgspec.Struct, frozen=True, kw_only=True):
    """The sshd of a host's stage 1, and the keys of one run for it.

    :param address: of stage 1, ``None`` for what its network gives it.
    """

    declared: InitrdSsh
    run_dir: Path
    address: IPv4Address | None

    @classmethod
    def of(cls, host: HostConfig, run_dir: Path) -> StageOneSsh | None:
        """Return the one of a VM with the disks of its host, ``None`` where there is none."""
        if not host.own_disks or host.initrd_ssh is None or not host.luks:
            return None
        return cls(
            declared=host.initrd_ssh, run_dir=run_dir, address=_static_address(host.kernel_params)
        )

    def files(self) -> Mapping[str, str]:
        """Return what stage 1 gets, by path; the keys are made when they are first asked for."""
        public = self._key(_OWN).export_public_key().decode()
        private = self._key_file(_HOST).read_text()
        return {
            **dict.fromkeys(_AUTHORIZED, public),
            **dict.fromkeys(self.declared.host_keys, private),
        }

    def unlock(self, connection: socket.socket, *, deadline: Deadline) -> None:
        """Log in over a connection to the guest's sshd and type the key where it is asked for.

        :raises TransportError: if that does not come about by `deadline`.
        """
        import asyncssh

        try:
            asyncio.run(asyncio.wait_for(self._unlock(connection), deadline.remaining_s))
        except (TimeoutError, OSError, asyncssh.Error) as err:
            raise TransportError(
                f"ssh to stage 1: {str(err) or f'no prompt within {deadline.limit_s:g} s'}",
                remedy="look at what sshd says on the console, and at boot.initrd.network.ssh",
            ) from err

    async def _unlock(self, connection: socket.socket) -> None:
        import asyncssh

        trusted: tuple[list[asyncssh.SSHKey], list[str], list[str]] = (
            [self._key(_HOST).convert_to_public()],
            [],
            [],
        )
        async with asyncssh.connect(
            "stage-1",
            sock=connection,
            config=None,
            username="root",
            client_keys=[self._key(_OWN)],
            known_hosts=trusted,
            agent_path=None,
        ) as client:
            command = _BY_SYSTEMD if self.declared.by_systemd else _BY_SCRIPT
            async with client.create_process(command, term_type="dumb") as process:
                said = ""
                while _ASKS not in said:
                    words = await process.stdout.read(_MOST_WORDS)
                    if not words:
                        raise ConnectionError(f"{command} asks for nothing: {said.strip()!r}")
                    said = (said + words)[-_MOST_WORDS:]
                process.stdin.write(f"{TEST_KEY}\n")
                await process.stdin.drain()
                # It ends with stage 1, or says that nothing else is asked for.
                await process.stdout.read(_MOST_WORDS)

    def _key(self, name: str) -> asyncssh.SSHKey:
        import asyncssh

        return asyncssh.read_private_key(self._key_file(name))

    def _key_file(self, name: str) -> Path:
        file = self.run_dir / name
        if not file.exists():
            import asyncssh

            made = asyncssh.generate_private_key("ssh-ed25519", comment="pytest-nixos stage 1")
            file.touch(mode=0o600)
            file.write_bytes(made.export_private_key())
        return file


def unlocked(
    ssh: StageOneSsh,
    strangers: Mapping[str, FrameProber],
    qmp: QmpMonitor,
    news: BootNews,
    *,
    deadline: Deadline,
) -> bool:
    """Unlock stage 1 over the network and tell of it; return whether that was done.

    :param strangers: by network of the guest, who stands there; the first one that meets it calls.
    """
    why = "it has no network"
    for network, stranger in strangers.items():
        limit = deadline.within(deadline.limit_s / len(strangers))
        if ssh.address is not None:
            stranger.face(IPv4Interface(f"{ssh.address}/24"))
        try:
            with (
                alone_with_guest(qmp, network),
                stranger.call(ssh.declared.port, deadline=limit) as connection,
            ):
                ssh.unlock(connection, deadline=limit)
        except NixosError as err:
            why = err.message
            continue
        news.tell(
            BootEventKind.OWN_DISKS,
            f"unlocked over the network, by ssh to port {ssh.declared.port} of stage 1",
        )
        return True
    news.tell(
        BootEventKind.TROUBLE,
        f"stage 1 is not unlocked over the network, but at the console: {why}",
    )
    return False


def _static_address(kernel_params: tuple[str, ...]) -> IPv4Address | None:
    """Return the first address of ``ip=ADDRESS:...`` (Linux, nfsroot.rst)."""
    for param in kernel_params:
        if param.startswith("ip="):
            try:
                return IPv4Address(param.removeprefix("ip=").partition(":")[0])
            except ValueError:
                continue
    return None
