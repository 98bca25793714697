"""What doctor says of machines that lack something, and of this one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.cli import doctor
from pytest_nixos.cli.main import main
from pytest_nixos.cli.needs import Need, State, Surroundings, needs
from pytest_nixos.errors import ToolMissingError
from pytest_nixos.local.process import Completed, LineSink
from pytest_nixos.local.timing import Deadline

TOOLS = ("nix", "git", "nix-store", "systemd-nspawn", "nsenter", "unshare", "ip")


class Answers:
    """A machine's programs: what each says, by its first words."""

    def __init__(self, **failing: str) -> None:
        self.failing = failing
        self.nix = "nix (Nix) 2.26.3"

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_stderr_line: LineSink | None = None,
    ) -> Completed:
        words = {"--version": "version", "eval": "eval", "build": "build", "unshare": "unshare"}
        key = next(words[word] for word in argv if word in words)
        if self.failing.get(key) == "missing":
            raise ToolMissingError(f"{argv[0]}: no such program", remedy="install it")
        said = self.failing.get(key, "")
        return Completed(
            argv=tuple(argv),
            exit_status=1 if said else 0,
            stdout=self.nix.encode(),
            stderr=said.encode(),
        )


@pytest.fixture
def machine(tmp_path: Path) -> Surroundings:
    """A bare machine that has everything."""
    for path, text in {
        "proc/meminfo": "MemAvailable:    8000000 kB\n",
        "proc/filesystems": "nodev\toverlay\n\text4\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Surroundings(
        runner=Answers(),
        which=lambda name: f"/usr/bin/{name}" if name in TOOLS else None,
        environ={"XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        uid=0,
        root=tmp_path,
    )


def by_name(around: Surroundings) -> dict[str, Need]:
    return {need.name: need for need in needs(around)}


def test_a_machine_that_has_everything_lacks_only_kvm(machine: Surroundings) -> None:
    found = by_name(machine)
    short = {name for name, need in found.items() if need.state is not State.OK}
    assert short - {"run directories", "snapshots"} == {"kvm"}
    assert "does not exist" in found["kvm"].told
    assert "ten times slower" in found["kvm"].remedy


def test_each_need_that_is_not_met_has_a_remedy(machine: Surroundings) -> None:
    bare = replace(
        machine,
        runner=Answers(version="missing", eval="missing", build="missing", unshare="no"),
        which=lambda _name: None,
        root=machine.root / "nowhere",
        uid=1000,
    )
    for need in needs(bare):
        assert (need.state is State.OK) is (need.remedy == ""), need


def test_another_kernel_is_told_with_what_does(
    machine: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Linux" not in by_name(machine)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    need = by_name(machine)["Linux"]
    assert need.state is State.LACKING
    assert "nix.linux-builder.enable" in need.remedy


def test_no_nix_is_told_once(machine: Surroundings) -> None:
    missing = Answers(version="missing", eval="missing", build="missing")
    found = by_name(replace(machine, runner=missing))
    assert found["nix"].state is State.LACKING
    assert "apt install nix-bin" in found["nix"].remedy
    assert not {"flakes", "builds"} & set(found)


def test_without_git_no_flake_of_a_repository_is_read(machine: Surroundings) -> None:
    without = replace(machine, which=lambda name: None if name == "git" else machine.which(name))
    assert by_name(without)["git"].state is State.LIMITED
    assert "install git" in by_name(without)["git"].remedy


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("nix (Nix) 2.8.0", State.OK),
        ("nix (Nix) 2.3.16", State.LACKING),
        ("nix (Lix, like Nix) 2.94.0", State.OK),
        ("nix (Determinate Nix 3.22.0) 2.35.1", State.OK),
    ],
)
def test_lanes_of_nix(machine: Surroundings, version: str, state: State) -> None:
    answers = Answers()
    answers.nix = version
    assert by_name(replace(machine, runner=answers))["nix"].state is state


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to root")
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_nobody_is_told_to_join_the_group_root(
    machine: Surroundings, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    device = machine.root / "dev/kvm"
    device.parent.mkdir()
    device.touch()
    device.chmod(mode)
    os.chown(device, 0, 0)
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = by_name(replace(machine, uid=1000))["kvm"].remedy
    assert "groupadd" in found
    assert "--groups root" not in found


def test_a_daemon_that_serves_a_group_only_is_told_once(machine: Surroundings) -> None:
    said = "error: getting status of /nix/var/nix/daemon-socket/socket: Permission denied"
    found = by_name(replace(machine, runner=Answers(eval=said, build=said), uid=1000))
    assert "flakes" not in found
    assert found["builds"].state is State.LACKING
    assert found["builds"].told == f"by the daemon: {said}"
    assert "usermod --append --groups nix-users USER" in found["builds"].remedy


@pytest.mark.parametrize(
    "said",
    [
        "error: could not set permissions on '/nix/var/nix/profiles/per-user' to 755: Operation not permitted",
        "error: opening lock file '/nix/var/nix/db/big-lock': Permission denied",
    ],
)
def test_a_store_that_this_user_may_not_write_is_told_once(
    machine: Surroundings, said: str
) -> None:
    """Nix 2.8 and 2.26 of Debian, as an ordinary user without a daemon (recorded)."""
    found = by_name(replace(machine, runner=Answers(eval=said, build=said), uid=1000))
    assert "flakes" not in found
    assert found["builds"].state is State.LACKING
    assert "nix-setup-systemd" in found["builds"].remedy


def test_features_that_are_off_are_told(machine: Surroundings) -> None:
    said = "error: experimental Nix feature 'flakes' is disabled"
    found = by_name(replace(machine, runner=Answers(eval=said)))["flakes"]
    assert found.state is State.LACKING
    assert "experimental-features = nix-command flakes" in found.remedy


@pytest.mark.parametrize(
    ("said", "uid", "daemon", "remedy"),
    [
        ("error: creating directory '/nix/store': Permission denied", 1000, False, "nix-daemon"),
        (
            "error: the group 'nixbld' specified in 'build-users-group' does not exist",
            0,
            False,
            "build-users-group =",
        ),
        ("error: out of disk", 1000, True, "make `nix build` work"),
    ],
)
def test_a_build_that_fails_says_how_to_mend_it(
    machine: Surroundings, said: str, uid: int, daemon: bool, remedy: str
) -> None:
    if daemon:
        socket = machine.root / "nix/var/nix/daemon-socket/socket"
        socket.parent.mkdir(parents=True)
        socket.touch()
    found = by_name(replace(machine, runner=Answers(build=f"warning\n{said}\n"), uid=uid))["builds"]
    assert found.state is State.LACKING
    assert said in found.told
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("backend", "state"),
    [
        (BackendName.CONTAINER, State.LACKING),
        (BackendName.VM, State.LIMITED),
        (None, State.LIMITED),
    ],
)
def test_what_containers_need_is_lacking_only_where_the_host_is_one(
    machine: Surroundings, backend: BackendName | None, state: State
) -> None:
    found = by_name(replace(machine, which=lambda _name: None, backend=backend, uid=1000))
    assert found["systemd-nspawn"].state is state
    assert "apt install systemd-container" in found["systemd-nspawn"].remedy
    assert found["root"].state is state


def test_the_programs_of_a_vm_come_from_its_closure(machine: Surroundings) -> None:
    vm = replace(machine, backend=BackendName.VM)
    assert "comes with the host's VM" in by_name(vm)["qemu"].told
    built = replace(vm, qemu="/nix/store/q/bin/qemu-kvm", runner=Answers(version=""))
    # No QEMU runs here: the device is not there, and that ends it.
    assert by_name(built)["qemu-img"].state is State.LIMITED
    assert "qemu-utils" in by_name(built)["qemu-img"].remedy
    whole = replace(built, qemu_img="/nix/store/q/bin/qemu-img")
    assert by_name(whole)["qemu-img"].told == "/nix/store/q/bin/qemu-img"


def test_old_cgroups_and_a_kernel_without_overlayfs(machine: Surroundings) -> None:
    (machine.root / "sys/fs/cgroup/cgroup.controllers").unlink()
    (machine.root / "sys/fs/cgroup/memory").mkdir()
    (machine.root / "proc/filesystems").write_text("\text4\n")
    found = by_name(replace(machine, backend=BackendName.CONTAINER))
    assert (found["cgroups"].state, found["cgroups"].told) == (State.LIMITED, "version 1")
    assert found["overlayfs"].state is State.LACKING


def test_the_command_ends_with_1_where_a_run_would_fail(
    machine: Surroundings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "Surroundings", lambda: machine)
    assert main(["doctor"]) == 0
    assert "ok  nix: nix (Nix) 2.26.3" in capsys.readouterr().out
    bare = replace(machine, runner=Answers(version="missing", eval="missing", build="missing"))
    monkeypatch.setattr(doctor, "Surroundings", lambda: bare)
    assert main(["doctor"]) == 1
    told = capsys.readouterr()
    assert "LACKING  nix: not on PATH\n          -> install Nix" in told.out
    assert told.err == "a run will fail for want of: nix\n"
    assert main(["doctor", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["lacking"] == ["nix"]
    assert {need["state"] for need in document["needs"]} == {"ok", "limited", "lacking"}


def test_a_host_without_a_name_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "github:me/infra"]) == 4
    assert "names no host" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="as root on a machine of the tests")
def test_this_machine_can_be_looked_at() -> None:
    assert {"nix", "builds", "kvm", "root", "namespaces"} <= set(by_name(Surroundings()))
