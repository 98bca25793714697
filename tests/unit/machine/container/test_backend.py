"""Starting containers: argv as values, files, choices, and errors before anything is started."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_nixos.errors import MachineError, ToolMissingError
from pytest_nixos.local.namespace import find_leader
from pytest_nixos.local.process import Completed, SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.container import nixos_container
from pytest_nixos.machine.container.backend import ContainerBackend
from pytest_nixos.machine.container.cgroup import ContainerCgroup, has_unified_cgroup
from pytest_nixos.machine.container.nix_database import load_closure
from pytest_nixos.machine.container.nixos_container import (
    NixosContainerStrategy,
    has_nixos_container,
    stale_names,
)
from pytest_nixos.machine.container.nspawn import (
    ContainerPlan,
    machine_name,
    nspawn_argv,
    prepare_root,
    scope_argv,
    stage_argv,
)
from pytest_nixos.machine.container.strategy import NspawnStrategy
from pytest_nixos.machine.network.scan import LinkAddresses, link_addresses
from pytest_nixos.nix.declared import Declared
from pytest_nixos.nix.host_facts import HostConfig

OWN = LinkAddresses(
    outside=IPv4Interface("10.233.0.1/24"),
    guest=IPv4Interface("10.233.0.2/24"),
    target=IPv4Address("10.233.0.2"),
)
PLAN = ContainerPlan(
    name="web",
    run_dir=Path("/tmp/r"),
    root=Path("/tmp/r/root"),
    init="/nix/store/t/init",
    cgroup="pytest-nixos-1-r",
    addresses=OWN,
)


class Host:
    """What the backend asks of a host config."""

    name = "web"

    def __init__(self, interfaces: Any = None) -> None:
        self.interfaces = interfaces

    def option(self, path: str) -> Declared:
        if path == "networking.interfaces" and self.interfaces is not None:
            return Declared(path=path, state="present", value=self.interfaces)
        return Declared(path=path, state="absent")


def spec(directory: Path, host: Host | None = None) -> MachineSpec:
    return MachineSpec(
        host=cast("HostConfig", host or Host()),
        system=Path("/nix/store/t"),
        run_dir=directory,
        boot_timeout_s=5,
    )


def test_nspawn_gets_what_a_nixos_container_needs() -> None:
    assert nspawn_argv(PLAN, "/bin/systemd-nspawn") == [
        "/bin/systemd-nspawn",
        "--directory=/tmp/r/root",
        "--machine=web",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--notify-ready=yes",
        "--kill-signal=SIGRTMIN+3",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=interactive",
        "--private-network",
        "--network-namespace-path=/tmp/r/private/network",
        "--overlay=/nix/store:/tmp/r/private/store:/nix/store",
        "/nix/store/t/init",
    ]


def test_a_colon_in_the_run_directory_does_not_split_the_overlay() -> None:
    argv = nspawn_argv(replace(PLAN, run_dir=Path("/tmp/a:b")), "nspawn")
    assert "--overlay=/nix/store:/tmp/a\\:b/private/store:/nix/store" in argv


def test_the_stage_makes_private_namespaces_and_ends_all_with_its_process() -> None:
    argv = stage_argv(PLAN, ["nspawn", "x"], unshare="/bin/unshare")
    assert argv[:5] == ["/bin/unshare", "--mount", "--net", "--propagation=private", "--"]
    script, *arguments = argv[7:]
    assert "PREFIX" not in script and "OUTSIDE" not in script and "GUEST" not in script
    assert arguments == [
        "pytest-nixos-stage",
        "pytest-nixos-1-r",
        "/tmp/r/private",
        "10.233.0.1/24",
        "10.233.0.2/24",
        *("/bin/unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *("nspawn", "x"),
    ]


def test_a_machine_with_systemd_gets_a_delegated_scope() -> None:
    argv = scope_argv("systemd-run", "pytest-nixos-1-r", ["x"])
    assert argv[-2:] == ["--", "x"]
    assert {"--scope", "--property=Delegate=yes", "--unit=pytest-nixos-1-r.scope"} <= set(argv)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("web", "web"), ("edge.lab-1", "edge-lab-1"), ("ä_ö", "nixos"), ("a" * 80, "a" * 63)],
)
def test_host_names_become_machine_names(name: str, expected: str) -> None:
    assert machine_name(name) == expected


def test_the_root_directory_holds_the_first_generation(tmp_path: Path) -> None:
    root = tmp_path / "root"
    prepare_root(root, Path("/nix/store/t"))
    profiles = root / "nix/var/nix/profiles"
    assert (profiles / "system").readlink() == Path("system-1-link")
    assert (profiles / "system-1-link").readlink() == Path("/nix/store/t")
    assert (root / "etc/os-release").read_bytes() == (root / "etc/machine-id").read_bytes() == b""
    assert stat.S_IMODE((root / "var/lib/private").stat().st_mode) == 0o700
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


def test_a_root_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("in the way")
    with pytest.raises(MachineError, match="cannot be made"):
        prepare_root(tmp_path / "root", Path("/nix/store/t"))


def test_a_host_without_addresses_gets_one() -> None:
    assert link_addresses(cast("HostConfig", Host())) == OWN


def test_a_declared_address_is_kept_and_the_stranger_joins_its_network() -> None:
    declared = {"eth0": {"ipv4": {"addresses": [{"address": "192.0.2.1", "prefixLength": 24}]}}}
    assert link_addresses(cast("HostConfig", Host(declared))) == LinkAddresses(
        outside=IPv4Interface("192.0.2.2/24"), guest=None, target=IPv4Address("192.0.2.1")
    )


@pytest.mark.parametrize(
    "interfaces",
    [
        {"eth0": {"ipv4": {"addresses": [{"address": "192.0.2.1", "prefixLength": 32}]}}},
        {"ens3": {"ipv4": {"addresses": [{"address": "192.0.2.1", "prefixLength": 24}]}}},
        {"eth0": {"ipv4": None}},
        "unreadable",
    ],
)
def test_a_declaration_that_no_stranger_can_share_is_no_help(interfaces: Any) -> None:
    assert link_addresses(cast("HostConfig", Host(interfaces))) == OWN


def test_no_root_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineError, match="needs root, this is user id 1000") as caught:
        ContainerBackend().start(spec(tmp_path), deadline=Deadline.after(5))
    assert "sudo" in caught.value.remedy
    assert "--nixos-backend vm" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_missing_nspawn_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("nsenter", "unshare", "ip", "nix-store"):
        _program(programs / name, "exit 0")
    monkeypatch.setenv("PATH", str(programs))
    run_dir = tmp_path / "r"
    run_dir.mkdir()
    strategy = NspawnStrategy(SubprocessRunner(), os.environ)
    with contextlib.ExitStack() as stack, pytest.raises(ToolMissingError) as caught:
        strategy.launch(spec(run_dir), Console(), stack, deadline=Deadline.after(5))
    assert "systemd-nspawn" in caught.value.message
    assert "apt install systemd-container" in caught.value.remedy
    assert list(run_dir.iterdir()) == []


def test_the_leader_is_the_inner_first_process(tmp_path: Path) -> None:
    table = {
        100: (1, "100"),
        101: (100, "101\t1"),
        102: (101, "102\t2"),
        103: (101, "103\t3\t1"),
        104: (103, "104\t4\t2"),
        200: (1, "200\t7\t1"),
    }
    for pid, (parent, namespaced) in table.items():
        (tmp_path / str(pid)).mkdir()
        text = f"Name:\tx\nPPid:\t{parent}\nNSpid:\t{namespaced}\n"
        (tmp_path / str(pid) / "status").write_text(text)
    (tmp_path / "self").mkdir()
    assert find_leader(100, proc=tmp_path) == 103
    assert find_leader(101, proc=tmp_path) is None
    assert find_leader(999, proc=tmp_path) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", True),
        (
            "30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n",
            False,
        ),
        (
            "30 1 0:26 / /sys/fs/cgroup rw - tmpfs t rw\n31 30 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 c rw\n",
            True,
        ),
        ("", False),
    ],
)
def test_the_hierarchy_that_lies_on_top_counts(tmp_path: Path, lines: str, expected: bool) -> None:
    (tmp_path / "mountinfo").write_text(lines)
    assert has_unified_cgroup(mountinfo=tmp_path / "mountinfo") is expected


@pytest.mark.parametrize("name", ["", "user.slice", "pytest-nixos-1/..", "/"])
def test_only_cgroups_of_ours_can_be_removed(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        ContainerCgroup(name)


class Store:
    """Answers as nix-store does, and keeps what it was asked."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[tuple[list[str], bytes, dict[str, str]]] = []
        self.failing = failing

    def run(
        self, argv: Any, *, deadline: Deadline, stdin: bytes = b"", env: Any = None, **_: Any
    ) -> Completed:
        self.calls.append((list(argv[1:]), stdin, dict(env or {})))
        failed = argv[1] == self.failing
        outputs = {"--query": b"/nix/store/a\n/nix/store/t\n", "--dump-db": b"registration"}
        return Completed(
            argv=tuple(argv),
            exit_status=1 if failed else 0,
            stdout=outputs.get(argv[1], b""),
            stderr=b"warning: x\nerror: path '/nix/store/t' is not valid\n" if failed else b"",
        )


def _with_nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "nix-store", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))


def test_the_closure_is_registered_in_the_containers_own_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_nix(tmp_path, monkeypatch)
    store = Store()
    load_closure(store, Path("/r"), Path("/nix/store/t"), deadline=Deadline.after(5))
    state = {"NIX_STATE_DIR": "/r/nix/var/nix", "NIX_REMOTE": "local"}
    assert store.calls == [
        (["--query", "--requisites", "/nix/store/t"], b"", {}),
        (["--dump-db", "/nix/store/a", "/nix/store/t"], b"", {}),
        (["--load-db"], b"registration", state),
    ]


def test_a_toplevel_that_nix_does_not_know_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_nix(tmp_path, monkeypatch)
    with pytest.raises(MachineError, match="is not valid") as caught:
        load_closure(Store("--query"), Path("/r"), Path("/nix/store/t"), deadline=Deadline.after(5))
    assert "warning: x" in caught.value.detail


def test_nixos_container_is_used_only_on_nixos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path / "nixos-container", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("etc/NIXOS", "etc/systemd/system/container@.service"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert not has_nixos_container(root=tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert has_nixos_container(root=tmp_path)
    (tmp_path / "etc/NIXOS").unlink()
    assert not has_nixos_container(root=tmp_path)


def test_containers_of_dead_sessions_are_stale(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    names = ["pn12", "pn13", "pn13-4", "pn", "web", "pn13x"]
    assert stale_names(names, proc=tmp_path) == ["pn13", "pn13-4"]


FAKE_NIXOS_CONTAINER = """
echo "$0 $*" >>"$LOG"
case $1 in
  list) echo web; echo pn4194304 ;;
  create) echo "host IP is 10.233.1.1" >&2; echo "$2-0" ;;
  show-ip) echo 10.233.1.2 ;;
esac
"""


def test_nixos_container_is_called_by_the_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    _program(programs / "nixos-container", FAKE_NIXOS_CONTAINER)
    _program(programs / "systemctl", 'echo "$0 $*" >>"$LOG"')
    _program(programs / "journalctl", "echo '<<< NixOS Stage 2 >>>'; exec sleep 60")
    _program(programs / "machinectl", "echo Leader=4711")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(log))
    console = Console()
    with contextlib.ExitStack() as stack:
        strategy = NixosContainerStrategy(SubprocessRunner(), os.environ)
        launched = strategy.launch(spec(tmp_path), console, stack, deadline=Deadline.after(20))
        assert launched.find_leader() == 4711
        assert launched.target == IPv4Address("10.233.1.2")
        assert launched.outside_pid == os.getpid()
    own = f"pn{os.getpid()}"
    assert log.read_text().replace(f"{programs}/", "").splitlines() == [
        "nixos-container list",
        "nixos-container destroy pn4194304",
        f"nixos-container create {own} --system-path /nix/store/t --ensure-unique-name",
        f"nixos-container show-ip {own}-0",
        f"systemctl start --no-block container@{own}-0.service",
        f"nixos-container destroy {own}-0",
    ]
    assert len(f"pn{4194303}-0") <= 11
    assert any("Stage 2" in line.text for line in console.lines)


def test_a_failing_nixos_container_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "nixos-container", "echo 'out of IP addresses' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    strategy = NixosContainerStrategy(SubprocessRunner(), os.environ)
    with contextlib.ExitStack() as stack, pytest.raises(MachineError, match="out of IP"):
        strategy.launch(spec(tmp_path), Console(), stack, deadline=Deadline.after(5))


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(MachineError, match="expected an IPv4 address"):
        nixos_container._address("web", "garbage\x1b[2J")


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
