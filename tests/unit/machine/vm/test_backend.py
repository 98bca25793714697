"""The VM backend against small run scripts: every bad end is told at once, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from pytest_nixos.errors import BootError, MachineError
from pytest_nixos.local.leftovers import marked_processes
from pytest_nixos.local.process import Completed, SubprocessRunner
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import MachineSpec, SecretArchive
from pytest_nixos.machine.boot.events import BootEvent, BootEventKind
from pytest_nixos.machine.network.guest_address import parse_outer
from pytest_nixos.machine.snapshot.record import snapshot_key
from pytest_nixos.machine.snapshot.store import SnapshotStore
from pytest_nixos.machine.vm.argv import Acceleration
from pytest_nixos.machine.vm.backend import (
    SnapshotOptions,
    VmBackend,
    VmOptions,
    _unsavable_secrets,
)
from pytest_nixos.machine.vm.launcher import VmLauncher
from pytest_nixos.machine.vm.run_script import parse_run_script
from tests.unit.host_documents import bare_host

FOR_EVER = "exec sleep 60"  # an ignored signal stays ignored across exec


HOST = bare_host(
    "llm-host",
    program="bin/run-llm-host-vm",
    guest_system=f"{os.uname().machine}-linux",
    snapshot_refusal="not asked for",
)


class Rig:
    """A run script of the test's own and the backend that runs it."""

    def __init__(self, directory: Path) -> None:
        self.system = directory / "system with blank"
        self.run_dir = directory / "r"
        self.events: list[BootEvent] = []
        (self.system / "bin").mkdir(parents=True)

    def script(self, text: str) -> None:
        path = self.system / HOST.program
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def spec(self) -> MachineSpec:
        return MachineSpec(
            host=HOST,
            system=self.system,
            run_dir=self.run_dir,
            boot_timeout_s=60,
        )

    def boot(self, limit_s: float = 20.0, *, environment: Mapping[str, str] | None = None) -> None:
        backend = VmBackend(
            VmOptions(acceleration=Acceleration.TCG, grace_s=0.3),
            self.events.append,
            environment={"PATH": os.environ["PATH"], **(environment or {})},
        )
        backend.start(self.spec(), deadline=Deadline.after(limit_s))

    def fail(self, limit_s: float = 20.0) -> BootError:
        with pytest.raises(BootError) as caught:
            self.boot(limit_s)
        return caught.value

    def assert_clean(self) -> None:
        assert not self.run_dir.exists()
        assert not marked_processes("NIX_DISK_IMAGE", str(self.run_dir / "disk.qcow2"))
        assert not [t for t in threading.enumerate() if t.name.startswith("nixos-")]


@pytest.fixture
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("v"))


def test_a_script_that_fails_is_told_with_its_words(rig: Rig) -> None:
    rig.script("echo 'qemu-img: disk.qcow2: error: No space left on device'; exit 1")
    error = rig.fail()
    assert error.state == "host machine: disk full"
    assert "QEMU ended with exit status 1" in str(error)
    assert "free space where the run directory lies" in error.remedy
    rig.assert_clean()


def test_a_full_disk_before_the_guests_first_word_is_the_host_machines(rig: Rig) -> None:
    rig.script("echo 'mkfs.ext4: No space left on device while writing'; exit 1")
    assert rig.fail().state == "host machine: disk full"


def test_a_script_killed_from_elsewhere_is_told(rig: Rig) -> None:
    rig.script("kill -9 $$")
    assert "QEMU ended by signal 9" in rig.fail().message
    rig.assert_clean()


def test_a_panic_is_told_at_once_and_with_what_came_after_it(rig: Rig) -> None:
    rig.script(
        f"echo 'Kernel panic - not syncing: VFS'; sleep 0.1; echo 'Call Trace: x'; {FOR_EVER}"
    )
    deadline = Deadline.after(5)
    error = rig.fail()
    assert not deadline.expired
    assert error.state == "kernel panic"
    assert error.console_tail[-1] == "Call Trace: x"
    rig.assert_clean()


def test_the_root_cause_of_a_failed_stage_1_is_named(rig: Rig) -> None:
    rig.script(
        "echo '<<< NixOS Stage 1 >>>'\n"
        "echo 'Timed out waiting for device /dev/disk/by-label/x, trying to mount anyway.'\n"
        "echo 'An error occurred in stage 1 of the boot process, which must mount the'\n"
        f"{FOR_EVER}"
    )
    error = rig.fail()
    assert error.state == "stage 1 failed"
    assert "root device not found: Timed out waiting for device /dev/disk/by-label/x" in str(error)
    assert "compare fileSystems" in error.remedy
    assert [event.text for event in rig.events if event.kind is BootEventKind.PHASE] == ["stage 1"]


def test_a_silent_machine_is_told_at_the_deadline_with_its_phase(rig: Rig) -> None:
    rig.script(
        "echo 'Welcome to NixOS 24.05 (Uakari)!'\n"
        f"echo '[ *** ] A start job is running for Slow Thing (42s / no limit)'; {FOR_EVER}"
    )
    error = rig.fail(limit_s=0.8)
    assert error.state == "stuck unit"
    assert "after 0.8 s; the boot stands while systemd starts units" in error.message
    assert "systemd reported last: Slow Thing (no limit)" in error.message
    assert "--nixos-boot-timeout" in error.remedy
    rig.assert_clean()


def test_a_machine_that_refuses_to_end_is_killed_with_its_helpers(rig: Rig) -> None:
    rig.script(
        "trap '' TERM HUP INT\n"
        f"(trap '' TERM; {FOR_EVER}) &\n"
        f"setsid sh -c 'trap \"\" TERM; {FOR_EVER}' &\n"
        f"mkdir -p $TMPDIR/xchg; echo 'Kernel panic - not syncing: x'; {FOR_EVER}"
    )
    deadline = Deadline.after(8)
    assert rig.fail().state == "kernel panic"
    assert not deadline.expired
    rig.assert_clean()


def test_ctrl_c_during_the_boot_leaves_nothing(rig: Rig) -> None:
    rig.script(f"touch $TMPDIR/file; {FOR_EVER}")
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        rig.boot()
    rig.assert_clean()


def test_a_run_directory_made_by_others_keeps_what_was_in_it(rig: Rig) -> None:
    rig.run_dir.mkdir()
    (rig.run_dir / "owner.lock").touch()
    rig.script("touch $NIX_DISK_IMAGE; mkdir -p $NIX_SWTPM_DIR; exit 1")
    rig.fail()
    assert [path.name for path in rig.run_dir.iterdir()] == ["owner.lock"]


def test_the_script_gets_its_places_and_our_arguments(rig: Rig) -> None:
    names = "NIX_DISK_IMAGE|TMPDIR|USE_TMPDIR|QEMU_OPTS|QEMU_NET_OPTS|TOKEN"
    rig.script(f'env | grep -E "^({names})="; printf "arg=%s\\n" "$@"; pwd; exit 1')
    with pytest.raises(BootError) as caught:
        rig.boot(environment={"QEMU_OPTS": "-m 4", "QEMU_NET_OPTS": "hostfwd=x", "TOKEN": "secret"})
    lines = caught.value.console_tail
    assert f"NIX_DISK_IMAGE={rig.run_dir}/disk.qcow2" in lines
    assert f"TMPDIR={rig.run_dir}/tmp" in lines
    assert "USE_TMPDIR=1" in lines
    assert "QEMU_OPTS=-m 4" in lines
    assert "QEMU_NET_OPTS=hostfwd=x" in lines
    assert "arg=accel=tcg" in lines
    assert f"arg=unix:{rig.run_dir}/qmp.sock,server=on,wait=off" in lines
    assert "arg=-no-reboot" in lines
    assert str(rig.run_dir) in lines
    assert not [line for line in lines if line.startswith("TOKEN")]


# What a run script may try; every success is a line that begins with HARM. It harms nobody even
# where all of it succeeds: outside of the canary it only asks whether it could, and what it mounts
# it takes away again.
HOSTILE = """
[ -e {canary} ] && echo HARM: found a file of the machine
echo >>{canary} && echo HARM: wrote a file of the machine
ls -d /root /home /srv /var/lib 2>/dev/null | sed 's/^/HARM: sees /'
[ -e /proc/{pid} ] && echo HARM: sees the process that runs pytest
kill -0 {pid} 2>/dev/null && echo HARM: may signal it
for path in /nix/store /usr /etc/hosts /proc/sys/vm/swappiness /proc/sysrq-trigger; do
  [ -w $path ] && [ $path != /etc/hosts ] && echo HARM: may write $path
done
mkdir -p "$TMPDIR/mount"
mount -t tmpfs x "$TMPDIR/mount" 2>/dev/null && umount "$TMPDIR/mount" && echo HARM: may mount
[ "$(id -u)" != 0 ] || ! unshare --user true 2>/dev/null || echo HARM: has namespaces of its own
grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status | grep -v 0000000000000000 | sed 's/^/HARM: /'
grep -q '^NoNewPrivs:.*1' /proc/self/status || echo HARM: may gain privileges
bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null && echo HARM: reached a port of the machine
[ -n "$TOKEN" ] && echo HARM: read a secret of the environment
echo it ran
exit 1
"""


def _harm(rig: Rig, canary: Path, *, sandboxed: bool = True, network: bool = False) -> list[str]:
    """Run the hostile script, and return what it did to this machine."""
    canary.write_text("mine")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        rig.script(HOSTILE.format(canary=canary, pid=os.getpid(), port=port))
        backend = VmBackend(
            VmOptions(
                acceleration=Acceleration.TCG, grace_s=0.3, sandboxed=sandboxed, network=network
            ),
            rig.events.append,
            environment={"PATH": os.environ["PATH"], "TOKEN": "secret"},
        )
        with pytest.raises(BootError) as caught:
            backend.start(rig.spec(), deadline=Deadline.after(20))
    assert "it ran" in caught.value.console_tail
    return [line for line in caught.value.console_tail if line.startswith("HARM")]


def test_the_run_script_can_do_nothing_to_this_machine(rig: Rig, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    assert _harm(rig, canary) == []
    assert canary.read_text() == "mine"


def test_an_open_network_opens_nothing_else(rig: Rig, tmp_path: Path) -> None:
    harm = _harm(rig, tmp_path / "canary", network=True)
    assert all("reached" in line for line in harm)
    assert "HARM: reached a port of the machine" in harm


def test_without_the_sandbox_the_script_does_all_that_and_it_is_told(
    rig: Rig, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    assert len(_harm(rig, canary, sandboxed=False)) >= 5
    assert canary.read_text() != "mine"
    told = [event.text for event in rig.events if event.kind is BootEventKind.NO_SANDBOX]
    assert len(told) == 1
    assert "--nixos-run-script-has-my-rights" in told[0]


def test_a_kernel_that_refuses_is_told_with_the_option_that_names_the_risk(rig: Rig) -> None:
    class Refusing(SubprocessRunner):
        def run(self, argv: Sequence[str], **options: Any) -> Completed:
            stderr = b"pytest-nixos-sandbox: new namespaces (unshare): Operation not permitted\n"
            return Completed(argv=tuple(argv), exit_status=125, stdout=b"", stderr=stderr)

    rig.script("echo started; exit 1")
    with pytest.raises(MachineError, match="Operation not permitted") as caught:
        VmBackend(runner=Refusing()).start(rig.spec(), deadline=Deadline.after(5))
    assert "--nixos-run-script-has-my-rights" in caught.value.remedy
    assert "user namespaces" in caught.value.remedy
    rig.assert_clean()


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs util-linux")
def test_a_kernel_without_user_namespaces_is_told(rig: Rig) -> None:
    """``user.max_user_namespaces`` belongs to a user namespace: it is 0 in one of the test's own."""
    none_left = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'

    class Without(SubprocessRunner):
        def run(self, argv: Sequence[str], **options: Any) -> Completed:
            inside = ("unshare", "--user", "--map-root-user", "sh", "-c", none_left, "sh", *argv)
            return super().run(inside, **options)

    rig.script("echo started; exit 1")
    with pytest.raises(MachineError, match=r"No space left on device|not permitted") as caught:
        VmBackend(runner=Without()).start(rig.spec(), deadline=Deadline.after(20))
    assert "--nixos-run-script-has-my-rights" in caught.value.remedy
    assert "user.max_user_namespaces" in caught.value.remedy
    rig.assert_clean()


SERVE = """
# -netdev user,id=user.0,hostfwd=tcp::{port}-:22
python3 -c '
import socket
with socket.create_server(("0.0.0.0", {port})):
    print("listening", flush=True)
    socket.create_server(("127.0.0.1", 0)).accept()
' || echo "no port"
"""


def _free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return int(probe.getsockname()[1])


def _is_served(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("network", [False, True])
def test_a_forwarded_port_is_served_only_with_an_open_network(rig: Rig, network: bool) -> None:
    port = _free_port()
    rig.script(SERVE.format(port=port))
    backend = VmBackend(
        VmOptions(acceleration=Acceleration.TCG, grace_s=0.1, network=network),
        rig.events.append,
        environment={"PATH": os.environ["PATH"]},
    )
    served: list[bool] = []

    def watch() -> None:
        limit = Deadline.after(4)
        heard = poll(lambda: _is_served(port) or None, deadline=limit, interval_s=0.1)
        served.append(bool(heard))

    watching = threading.Thread(target=watch)
    watching.start()
    with pytest.raises(BootError) as caught:
        backend.start(rig.spec(), deadline=Deadline.after(5))
    watching.join()
    assert "listening" in caught.value.console_tail
    assert served == [network]
    told = [event for event in rig.events if event.kind is BootEventKind.CLOSED_PORTS]
    assert ["127.0.0.1" in event.text for event in told] == [network]


def test_a_forwarded_port_of_a_restricted_host_without_a_sandbox_is_refused(rig: Rig) -> None:
    rig.script(SERVE.format(port=_free_port()))
    backend = VmBackend(VmOptions(acceleration=Acceleration.TCG, sandboxed=False))
    with pytest.raises(MachineError, match="all of its addresses") as caught:
        backend.start(rig.spec(), deadline=Deadline.after(5))
    assert "--nixos-network open" in caught.value.remedy


def test_a_stand_in_behind_a_network_that_passes_nothing_on_is_refused(rig: Rig) -> None:
    rig.script("exec sleep 60 -netdev user,id=user.0,restrict=on")
    backend = VmBackend(VmOptions(stand_in=True))
    with pytest.raises(MachineError, match="out of the guest's reach: its run script has restrict"):
        backend.start(rig.spec(), deadline=Deadline.after(20.0))
    rig.assert_clean()


def test_no_script_is_told_before_anything_is_made(rig: Rig) -> None:
    with pytest.raises(MachineError, match="run script"):
        rig.boot()
    rig.assert_clean()


def test_without_kvm_one_warning_is_told_for_all_machines(rig: Rig) -> None:
    rig.script("exit 1")
    backend = VmBackend(None, rig.events.append, environment={"PATH": os.environ["PATH"]})
    for _ in range(2):
        with pytest.raises(BootError):
            backend.start(rig.spec(), deadline=Deadline.after(10))
    warnings = [event.text for event in rig.events if event.kind is BootEventKind.NO_KVM]
    assert len(warnings) == 1
    assert "does not tell which QEMU it starts" in warnings[0]


def test_a_guest_of_another_architecture_runs_without_kvm(rig: Rig) -> None:
    rig.script("exit 1")
    backend = VmBackend(None, rig.events.append, environment={"PATH": os.environ["PATH"]})
    host = msgspec.structs.replace(HOST, guest_system="riscv64-linux")
    spec = replace(rig.spec(), host=host)
    with pytest.raises(BootError):
        backend.start(spec, deadline=Deadline.after(10))
    assert "a riscv64 guest on" in rig.events[0].text


def test_the_guests_outer_address_is_found_beside_its_inner_ones() -> None:
    listing = (
        "2: docker0    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0\n"
        "3: br0    inet 192.0.2.7/24 scope global br0\n"
        "4: ens3    inet 10.0.0.41/19 brd 10.0.31.255 scope global ens3\n"
    )
    assert [str(a.v4) for a in parse_outer(listing)] == ["10.0.0.41/19", "192.0.2.7/24"]
    assert parse_outer("") == ()


def test_without_qemu_img_it_boots_once_and_says_so(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone cannot have a disk then, so that a saved machine would only cost a second boot."""
    # In the sandbox no file that it writes would outlive its boot.
    rig.script('echo once >>"$NIX_BOOTS"; exit 1; exec /nix/store/gone-qemu/bin/qemu-kvm -m 512')
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    backend = VmBackend(
        VmOptions(
            acceleration=Acceleration.TCG,
            snapshots=SnapshotOptions(store=SnapshotStore(tmp_path / "snapshots")),
            sandboxed=False,
        ),
        rig.events.append,
        environment={"PATH": os.environ["PATH"], "NIX_BOOTS": str(tmp_path / "boots")},
    )
    host = msgspec.structs.replace(HOST, snapshot_refusal="")
    with pytest.raises(BootError):
        backend.start(
            replace(rig.spec(), host=host),
            deadline=Deadline.after(20),
        )
    (said,) = [event.text for event in rig.events if event.kind is BootEventKind.SNAPSHOT]
    assert "booting without a snapshot: no qemu-img" in said
    assert "apt install qemu-utils" in said
    assert (tmp_path / "boots").read_text() == "once\n"


def test_the_key_of_a_snapshot_names_the_values_and_what_is_given_is_not_saved(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    rig.script("exit 0")
    script = parse_run_script(rig.system / HOST.program)

    def parts(secrets: SecretArchive | None) -> Mapping[str, str]:
        return VmLauncher(
            spec=replace(rig.spec(), secrets=secrets),
            script=script,
            acceleration=Acceleration.TCG,
            options=VmOptions(),
            inherited={},
            on_event=lambda _: None,
            runner=SubprocessRunner(),
        ).parts(512)

    ours = SecretArchive(path=tmp_path / "t", digest="one", may_be_saved=True)
    keys = [parts(None), parts(ours), parts(replace(ours, digest="two"))]
    assert len({snapshot_key(key) for key in keys}) == 3
    assert not _unsavable_secrets(replace(rig.spec(), secrets=ours))
    theirs = replace(ours, may_be_saved=False)
    assert "not kept" in _unsavable_secrets(replace(rig.spec(), secrets=theirs))
