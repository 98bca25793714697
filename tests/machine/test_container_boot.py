"""The container backend with a real NixOS toplevel: boot, network, generations, bad ends,
nothing left behind.

``PYTEST_NIXOS_CONTAINER_TOPLEVEL`` is the store path of ``config.system.build.toplevel`` of a host
with ``boot.isContainer``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import BootError, TransportError
from pytest_nixos.local.run_directory import run_directory, sweep
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.boot.events import BootEvent, BootEventKind
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.container import channel
from pytest_nixos.machine.container.backend import ContainerBackend, ContainerRunning
from pytest_nixos.machine.container.boot_notice import BootNotice
from pytest_nixos.observe.base import observe
from pytest_nixos.observe.filesystems.drift import Drift, drift
from tests.unit.host_documents import bare_host

TOPLEVEL = os.environ.get("PYTEST_NIXOS_CONTAINER_TOPLEVEL", "")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not TOPLEVEL or not shutil.which("systemd-nspawn"),
    reason="needs root, systemd-nspawn and PYTEST_NIXOS_CONTAINER_TOPLEVEL",
)

LIMIT_S = 120.0


def spec(directory: Path) -> MachineSpec:
    return MachineSpec(
        host=bare_host("web"),
        system=Path(TOPLEVEL),
        run_dir=directory,
        boot_timeout_s=LIMIT_S,
    )


@contextlib.contextmanager
def started(events: list[BootEvent] | None = None) -> Iterator[ContainerRunning]:
    heard = [] if events is None else events
    with run_directory() as directory:
        backend = ContainerBackend(heard.append)
        running = backend.start(spec(directory.path), deadline=Deadline.after(LIMIT_S))
        try:
            yield running
        finally:
            running.stop()


def run(running: ContainerRunning, command: str) -> CommandResult:
    return running.transport.run(command, deadline=Deadline.after(60))


def traces(directory: Path) -> list[str]:
    """What a container left on this machine."""
    name = directory.name
    # Unlike Path.rglob it minds no group of another test that goes meanwhile.
    groups = (
        f"{above}/{group}" for above, below, _ in os.walk("/sys/fs/cgroup") for group in below
    )
    found = [path for path in groups if fnmatch(path, f"*/pytest-nixos-*{name}")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if name in line]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if name.encode() in words and b"pytest" not in words.split(b"\0")[0]:
                found.append(words.decode(errors="replace"))
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return found + [line for line in links.splitlines() if "outside0" in line]


@pytest.fixture(scope="module")
def events() -> list[BootEvent]:
    return []


@pytest.fixture(scope="module")
def words() -> list[bool]:
    """Whether the word of its end had come, at each close of what hears it."""
    return []


@pytest.fixture(scope="module")
def running(events: list[BootEvent], words: list[bool]) -> Iterator[ContainerRunning]:
    close = BootNotice.close

    def heard(notice: BootNotice) -> None:
        # A look that takes long can see the end before it is told.
        told = poll(lambda: notice.has_come() or None, deadline=Deadline.after(60))
        words.append(bool(told))
        close(notice)

    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BootNotice, "close", heard)
            machine = stack.enter_context(started(events))
        yield machine


def test_the_boot_is_told_from_stage_2_to_settled(
    running: ContainerRunning, events: list[BootEvent]
) -> None:
    assert running.is_alive()
    kinds = [event.kind for event in events]
    assert kinds.index(BootEventKind.CHANNEL) < kinds.index(BootEventKind.SETTLED)
    phases = [event.text for event in events if event.kind is BootEventKind.PHASE]
    assert phases[:2] == ["stage 2", "systemd"]


def test_the_end_of_the_boot_is_told_by_the_guests_own_systemd(
    running: ContainerRunning, words: list[bool]
) -> None:
    assert running.is_alive()
    assert words == [True]
    assert not list(running._launched.notice.path.parent.glob("*.sock"))


def test_the_system_runs_the_toplevel(running: ContainerRunning) -> None:
    for link in ("current-system", "booted-system"):
        assert run(running, f"readlink -f /run/{link}").stdout_text.strip() == TOPLEVEL
    assert run(running, "systemd-detect-virt").stdout_text.strip() == "systemd-nspawn"


def test_commands_have_the_login_environment(running: ContainerRunning) -> None:
    text = run(running, "echo $__NIXOS_SET_ENVIRONMENT_DONE $HOME; type -P systemctl").stdout_text
    assert text == "1 /root\n/run/current-system/sw/bin/systemctl\n"


def test_the_guest_sees_its_own_network_and_no_other(running: ContainerRunning) -> None:
    assert run(running, "ls /sys/class/net").stdout_text.split() == ["eth0", "lo"]
    assert run(running, "ip -4 -o addr show eth0").stdout_text.split()[3].startswith("10.233.0.2/")
    assert run(running, "bash -c '</dev/tcp/192.0.2.1/80'").exit_status != 0


def test_ports_are_judged_from_outside(running: ContainerRunning) -> None:
    run(running, "iptables -F; nft flush ruleset")
    serve = "systemd-socket-activate --listen=81 cat >/dev/null 2>&1 &"
    run(running, f"{serve} for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; done")
    found = running.probe_tcp([81, 82], deadline=Deadline.after(60))
    assert found == {81: PortState.OPEN, 82: PortState.CLOSED}


def test_what_was_put_beside_the_flake_is_found(running: ContainerRunning) -> None:
    def look() -> Drift:
        found = observe(lambda script: run(running, script), drift())
        assert found is not None
        return found

    fresh = look()
    assert (fresh.current, fresh.files, fresh.containers) == (TOPLEVEL, (), ())

    by_hand = "useradd bob; mkdir -p /etc/app /etc/nixos-containers"
    run(running, f"{by_hand}; echo x >/etc/app/rc; echo x >/etc/nixos-containers/old.conf")
    now = look()
    assert (now.files, now.containers) == (("app/rc",), ("old",))
    assert set(now.accounts) - set(fresh.accounts) == {"bob"}
    run(running, "userdel bob; rm -r /etc/app /etc/nixos-containers")


def test_generations_can_be_set_and_rolled_back(running: ContainerRunning) -> None:
    profile = "/nix/var/nix/profiles/system"
    first = run(running, f"nix-env -p {profile} --list-generations").stdout_text
    assert first.split()[0] == "1"
    assert "(current)" in first
    # Any valid path is a generation to nix-env.
    other = f"$(nix-store --query --references {TOPLEVEL} | head -n 1)"
    assert run(running, f"nix-env -p {profile} --set {other}").exit_status == 0
    assert run(running, f"readlink {profile}").stdout_text == "system-2-link\n"
    assert run(running, f"nix-env -p {profile} --rollback").exit_status == 0
    assert run(running, f"readlink -f {profile}").stdout_text.strip() == TOPLEVEL


def test_the_guest_cannot_harm_this_machines_store() -> None:
    with started() as machine:
        remount = "mount -o remount,rw,bind /nix/store"
        harm = f"{remount} && echo >/nix/store/x && rm -rf {TOPLEVEL} && ! [ -e {TOPLEVEL} ]"
        assert run(machine, harm).exit_status == 0
        assert Path(TOPLEVEL, "init").exists()
        assert not Path("/nix/store/x").exists()


def test_two_containers_of_one_name_do_not_meet(running: ContainerRunning) -> None:
    with started() as other:
        run(running, "hostname first")
        run(other, "hostname second; touch /only-here")
        assert run(running, "hostname").stdout_text == "first\n"
        assert run(running, "ls /only-here").exit_status != 0
        state = running.probe_tcp([9], deadline=Deadline.after(60))
        assert state.keys() == other.probe_tcp([9], deadline=Deadline.after(60)).keys()


def test_stopping_leaves_nothing() -> None:
    with run_directory() as directory:
        backend = ContainerBackend()
        machine = backend.start(spec(directory.path), deadline=Deadline.after(LIMIT_S))
        assert traces(directory.path)
        machine.stop()
        machine.stop()
        assert not machine.is_alive()
        assert [path.name for path in directory.path.iterdir()] == ["owner.lock"]
        assert _gone(directory.path)


@pytest.mark.parametrize("which", ["unshare", "systemd-nspawn", "process 1"])
def test_a_container_that_is_killed_is_told_and_leaves_nothing(which: str) -> None:
    with run_directory() as directory:
        backend = ContainerBackend()
        machine = backend.start(spec(directory.path), deadline=Deadline.after(LIMIT_S))
        try:
            assert machine.leader is not None
            children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text()
            pids = {
                "unshare": machine.pid,
                "systemd-nspawn": int(children),
                "process 1": machine.leader.pid,
            }
            os.kill(pids[which], signal.SIGKILL)
            with pytest.raises(TransportError, match="systemd-nspawn ended"):
                run(machine, "sleep 10")
            with pytest.raises(TransportError, match="systemd-nspawn ended"):
                machine.probe_tcp([1], deadline=Deadline.after(60))
            assert not machine.is_alive()
        finally:
            machine.stop()
        assert _gone(directory.path)


def test_an_init_that_is_missing_is_told_with_the_console() -> None:
    with run_directory() as directory:
        bad = replace(spec(directory.path), system=Path(TOPLEVEL) / "etc")
        backend = ContainerBackend()
        with pytest.raises(BootError) as caught:
            backend.start(bad, deadline=Deadline.after(LIMIT_S))
        assert "systemd-nspawn ended with exit status 1" in caught.value.message
        assert "its init cannot be run" in caught.value.remedy
        assert any("execv" in line for line in caught.value.console_tail)
        assert _gone(directory.path)


def test_a_guest_without_bash_is_not_told_as_a_network_without_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        channel, "_TEXT", channel._TEXT.replace("ExecStart=bash", "ExecStart=no-bash")
    )
    with run_directory() as directory:
        with pytest.raises(BootError, match="no answer from the root command channel") as caught:
            ContainerBackend().start(spec(directory.path), deadline=Deadline.after(15))
        assert "route" not in str(caught.value)
        assert _gone(directory.path)


def test_a_boot_that_takes_too_long_is_told_and_leaves_nothing() -> None:
    with run_directory() as directory:
        # On a slow machine the time may be up before anything is started: it is the boot's all the same.
        with pytest.raises(BootError) as caught:
            ContainerBackend().start(spec(directory.path), deadline=Deadline.after(0.7)).stop()
        assert "--nixos-boot-timeout" in caught.value.remedy
        assert _gone(directory.path)


SESSION = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = sys.argv[1:3]
import test_container_boot as t
with t.run_directory() as directory:
    print(directory.path, flush=True)
    machine = t.ContainerBackend(lambda event: print(event.kind.value, flush=True)).start(
        t.spec(directory.path), deadline=t.Deadline.after(t.LIMIT_S))
    try:
        print("up", flush=True)
        time.sleep(100)
    finally:
        machine.stop()
"""


@pytest.mark.parametrize("until", ["", "phase", "up"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_session_that_is_ended_leaves_nothing_that_runs(
    number: signal.Signals, until: str
) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    with subprocess.Popen(
        [sys.executable, "-c", SESSION, *paths], stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdout is not None
        directory = Path(session.stdout.readline().strip())
        while until and session.stdout.readline().strip() != until:
            assert session.poll() is None
        time.sleep(0.2)
        session.send_signal(number)
    if number is signal.SIGINT:
        assert not directory.exists()
    else:
        # What a killed session could not remove, the next one does; or, where a process of it was
        # still at work there, the one after it.
        with started():
            assert _swept(directory)
        if traces(directory):
            with started():
                pass
    assert _gone(directory)


def _swept(directory: Path) -> bool:
    def look() -> bool | None:
        if not directory.exists():
            return True
        sweep(directory.parent)
        return None

    return poll(look, deadline=Deadline.after(60)) is True


def _gone(directory: Path) -> bool:
    look: Callable[[], bool | None] = lambda: None if traces(directory) else True  # noqa: E731
    return poll(look, deadline=Deadline.after(60)) is True
