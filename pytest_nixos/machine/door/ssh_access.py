"""What an ssh client needs to enter a machine: a key of the run, the machine's own, and a
configuration that names both.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from pytest_nixos.machine.door.visitor import OpenDoor

__all__ = ["HOST_KEY", "KEY", "ssh_configuration", "ssh_configuration_file", "ssh_keys"]

#: Name of the client's key in the directory of :func:`ssh_keys`.
KEY = "id_ed25519"
#: Name of the machine's own key there.
HOST_KEY = "host_key"
_CONFIGURATION = "ssh_config"
_KNOWN_HOSTS = "known_hosts"


def ssh_keys(door: OpenDoor) -> Path:
    """Return the directory with the keys of a machine's run, which are made when they are first
    asked for; they are this user's alone and go with the machine.
    """
    directory = door.directory / "ssh"
    if not directory.is_dir():
        new = Path(tempfile.mkdtemp(prefix="ssh-", dir=door.directory))
        for name in (KEY, HOST_KEY):
            _write_key(new / name, comment=f"pytest-nixos {door.card.name}")
        public = (new / f"{HOST_KEY}.pub").read_text()
        (new / _KNOWN_HOSTS).write_text(f"{door.card.name} {public}")
        try:
            new.rename(directory)
        except OSError:  # another process was first
            shutil.rmtree(new, ignore_errors=True)
    return directory


def ssh_configuration(door: OpenDoor) -> str:
    """Return a machine's ``Host`` block of ssh_config(5).

    ssh starts the server for itself and speaks to it through a pipe: there is no port, and nothing
    that anybody but this user could reach.
    """
    keys = ssh_keys(door)
    found = os.environ.get("PYTHONPATH")
    # Nobody's working directory is searched for modules.
    proxy = [sys.executable, "-P", "-m", "pytest_nixos", "ssh-proxy", door.card.name]
    words = shlex.join([*(("env", f"PYTHONPATH={found}") if found else ()), *proxy])
    return "\n".join(
        (
            f"Host {door.card.name}",
            f"  HostName {door.card.name}",
            "  User root",
            f"  IdentityFile {keys / KEY}",
            "  IdentityAgent none",
            "  IdentitiesOnly yes",
            f"  UserKnownHostsFile {keys / _KNOWN_HOSTS}",
            "  GlobalKnownHostsFile /dev/null",
            "  StrictHostKeyChecking yes",
            "  LogLevel ERROR",
            f"  ProxyCommand {words.replace('%', '%%')}",  # "%" is ssh's own mark there
            "",
        )
    )


def ssh_configuration_file(door: OpenDoor) -> Path:
    """Return a file with what :func:`ssh_configuration` gives, beside the keys."""
    file = ssh_keys(door) / _CONFIGURATION
    new = file.with_name(f"{_CONFIGURATION}.{os.getpid()}")
    new.write_text(ssh_configuration(door))
    new.rename(file)
    return file


def _write_key(path: Path, *, comment: str) -> None:
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519", comment=comment)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.export_private_key())
    path.with_name(f"{path.name}.pub").write_bytes(key.export_public_key())
