"""System, files and accounts."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from pytest_nixos.observe.account import PasswordState, local_users
from pytest_nixos.observe.base import ProbeOutput, observe
from pytest_nixos.observe.file import FileType, files
from pytest_nixos.observe.system import system
from tests.unit.test_observe_kernel import here

SYSTEM = b"""=os-release
ID=nixos
VERSION_ID="24.05"
PRETTY_NAME="NixOS 24.05 (Uakari)"
HOME_URL="unclosed
=nixos-version
24.05.20240531.abc
=command-line
loglevel=4 init=/nix/store/x/init foo="a b" init-hook=1 loglevel=7 quiet
=modules
zram 40960 1 - Live 0x0
nf_tables 300 2 - Live 0x0
=uptime
75.12 60.00
=synchronised
=time-zone
/etc/zoneinfo/Europe/Berlin
=tainted
0
"""


def test_release_and_command_line() -> None:
    found = system().parse(ProbeOutput(stdout=SYSTEM, exit_status=0))
    assert (found.os_release["ID"], found.os_release["VERSION_ID"]) == ("nixos", "24.05")
    assert found.nixos_version == "24.05.20240531.abc"
    assert (found.parameter("loglevel"), found.parameter("foo")) == ("7", "a b")
    assert (found.parameter("init_hook"), found.parameter("quiet")) == ("1", "")
    assert found.parameter("init-") is None
    assert found.modules == {"zram", "nf_tables"}
    assert (found.uptime_s, found.tainted, found.time_zone) == (75.12, 0, "Europe/Berlin")
    assert found.timesyncd_synchronised


def test_a_real_system() -> None:
    found = observe(here, system())
    assert found.kernel == platform.release()
    assert found.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (found.uptime_s or 0) > 0


def test_real_files(tmp_path: Path) -> None:
    odd = tmp_path / "a 'b'\n$(c)"
    odd.write_text("four")
    odd.chmod(0o4640)
    (tmp_path / "link").symlink_to("/nix/store/x")
    os.mkfifo(tmp_path / "pipe")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    paths = [str(odd), *(str(tmp_path / n) for n in ("link", "pipe", "open", "gone"))]
    found = observe(here, files(paths))
    first, link, pipe, directory, gone = (found[path] for path in paths)
    assert gone is None
    assert first and link and pipe and directory
    assert (first.type, first.mode, first.size_bytes) == (FileType.FILE, 0o4640, 4)
    assert (first.uid, first.modified_s) == (os.getuid(), int(odd.stat().st_mtime))
    assert (link.type, link.target, link.is_in_store) == (FileType.LINK, "/nix/store/x", True)
    assert pipe.type is FileType.FIFO
    assert (directory.mode, directory.is_world_writable) == (0o1777, True)
    assert not link.is_world_writable
    assert not first.is_world_writable


def test_no_paths_ask_nothing() -> None:
    assert files([]).script == ":"


ACCOUNTS = b"""=passwd
root:x:0:0:System administrator:/root:/run/current-system/sw/bin/bash
alice:x:1000:100::/home/alice:/run/current-system/sw/bin/bash
sshd:x:995:995::/var/empty:/run/current-system/sw/bin/nologin
odd:x:nan
=group
wheel:x:1:alice,bob
users:x:100:
=shadow
root:locked::
alice:hash=y:90:20000
sshd:none:99999:
"""


def test_accounts() -> None:
    found = local_users().parse(ProbeOutput(stdout=ACCOUNTS, exit_status=0))
    assert list(found.users) == ["root", "alice", "sshd"]
    alice, root, sshd = found.users["alice"], found.users["root"], found.users["sshd"]
    assert (alice.password, alice.scheme, alice.password_max_days) == (PasswordState.SET, "y", 90)
    assert (alice.expires_day, alice.can_log_in) == (20000, True)
    assert (root.password, root.expires_day) == (PasswordState.LOCKED, None)
    assert (sshd.password, sshd.password_max_days) == (PasswordState.NONE, None)
    assert not sshd.can_log_in
    assert found.groups == {"wheel": ("alice", "bob"), "users": ()}
    assert found.group_ids["users"] == 100


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("$y$j9T$salt$hash", "hash=y"),
        ("$6$salt$hash", "hash=6"),
        ("!", "locked"),
        ("!$6$salt$hash", "locked"),
        ("*", "locked"),
        ("", "none"),
        ("abJnggxhB/yWI", "hash=des"),
    ],
)
def test_a_password_field_never_leaves_the_guest(tmp_path: Path, field: str, kind: str) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text(f"alice:{field}:19000:0:99999:7:::\n")
    script = local_users().script.replace("/etc/shadow", str(shadow))
    output = here(script).stdout.decode()
    assert output.endswith(f"=shadow\nalice:{kind}:99999:\n")
    assert "hash\n" not in output
    assert "Jngg" not in output
