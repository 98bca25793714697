"""Starting containers: argv as values, files, choices, and errors before anything is started."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from pytest_nixos.errors import BootError, MachineError, ToolMissingError
from pytest_nixos.local.namespace import find_leader
from pytest_nixos.local.process import Completed, ProcessTimeout, SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.container.backend import ContainerBackend
from pytest_nixos.machine.container.cgroup import ContainerCgroup, has_unified_cgroup
from pytest_nixos.machine.container.disk import make_disk, prepare_root
from pytest_nixos.machine.container.limits import Limits, OldGroups, limits_of, reached
from pytest_nixos.machine.container.nspawn import (
    ContainerPlan,
    guest_link_batch,
    machine_name,
    nspawn_argv,
    outside_interface,
    scope_argv,
    stage_argv,
)
from pytest_nixos.machine.container.started import Launched
from pytest_nixos.machine.container.strategy import NspawnStrategy
from pytest_nixos.machine.container.users import UserRange, choose_range, own_tree, ping_groups
from pytest_nixos.machine.network.scan import LinkAddresses, link_addresses
from pytest_nixos.nix.config.cards import Card
from pytest_nixos.nix.config.host_facts import HostConfig
from tests.unit.host_documents import bare_host

OWN = LinkAddresses(
    outside=IPv4Interface("10.233.0.1/24"),
    guest=IPv4Interface("10.233.0.2/24"),
    target=IPv4Address("10.233.0.2"),
)
PLAN = ContainerPlan(
    name="web",
    run_dir=Path("/tmp/r"),
    init="/nix/store/t/init",
    cgroup="pytest-nixos-1-r",
    addresses=OWN,
    limits=Limits(memory_bytes=1 << 30, tasks=100),
    users=UserRange(base=0x70000000, size=0x80000),
)


def with_addresses(declared: Mapping[str, Sequence[str]]) -> HostConfig:
    cards = [
        Card(name=name, hardware="", addresses=tuple(texts)) for name, texts in declared.items()
    ]
    return bare_host("web", cards=tuple(cards))


def with_units(*names: str) -> HostConfig:
    return bare_host("web", units=dict.fromkeys(names))


def spec(directory: Path, host: HostConfig | None = None) -> MachineSpec:
    return MachineSpec(
        host=host or bare_host("web"),
        system=Path("/nix/store/t"),
        run_dir=directory,
        boot_timeout_s=5,
    )


def test_nspawn_gets_what_a_nixos_container_needs() -> None:
    assert nspawn_argv(PLAN, "/bin/systemd-nspawn") == [
        "/bin/systemd-nspawn",
        "--directory=/tmp/r/private/disk/root",
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
        "--private-users=1879048192:524288",
        "--private-network",
        "--network-interface=eth0",
        "--overlay=/tmp/r/private/lower:/tmp/r/private/disk/store:/nix/store",
        "--bind-ro=/tmp/r/private/channel:/run/pytest-nixos-channel",
        f"--tmpfs=/run/pytest-nixos:mode=0700,nosuid,nodev,size={1 << 28}",
        "--tmpfs=/run/systemd:mode=0755,nosuid,nodev,size=20%",
        "--bind-ro=/tmp/r/private/channel/units:/run/systemd/system.attached",
        "/nix/store/t/init",
    ]


def test_only_the_option_that_says_so_gives_a_container_this_machines_users() -> None:
    assert "--private-users=no" in nspawn_argv(replace(PLAN, users=None), "nspawn")
    assert not [a for a in nspawn_argv(PLAN, "nspawn") if a == "--private-users=no"]


def test_a_colon_in_the_run_directory_does_not_split_the_overlay() -> None:
    argv = nspawn_argv(replace(PLAN, run_dir=Path("/tmp/a:b")), "nspawn")
    private = "/tmp/a\\:b/private"
    assert f"--overlay={private}/lower:{private}/disk/store:/nix/store" in argv
    assert f"--bind-ro={private}/channel:/run/pytest-nixos-channel" in argv


def test_the_stage_makes_private_namespaces_and_ends_all_with_its_process() -> None:
    argv = stage_argv(PLAN, ["nspawn", "x"], unshare="/bin/unshare", join=(Path("/sys/g"),))
    assert argv[:5] == ["/bin/unshare", "--mount", "--net", "--propagation=private", "--"]
    script, *arguments = argv[7:]
    assert not [
        word for word in ("PREFIX", "OUTSIDE", "GUEST", "HELPER", "PIPES") if word in script
    ]
    assert arguments == [
        "pytest-nixos-stage",
        "pytest-nixos-1-r",
        str(1 << 30),
        "100",
        "/tmp/r",
        "10.233.0.1/24",
        sys.executable,
        *("1879048192", "524288", "", "/sys/g", "--"),
        *("/bin/unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *("nspawn", "x"),
    ]


def test_the_guests_end_of_the_link_gets_what_the_host_does_not_declare() -> None:
    up = "link set eth0 up\n"
    added = "addr replace 10.233.0.2/24 dev eth0\n"
    assert guest_link_batch(OWN) == added + up
    assert guest_link_batch(replace(OWN, guest=None)) == up
    route = "route replace default via 10.233.0.1\n"
    assert guest_link_batch(OWN, default_route=True) == added + up + route
    assert guest_link_batch(replace(OWN, guest=None), default_route=True) == up


def test_a_machine_with_systemd_gets_a_delegated_scope_with_limits() -> None:
    argv = scope_argv("systemd-run", "pytest-nixos-1-r", PLAN.limits, ["x"])
    assert argv[-2:] == ["--", "x"]
    assert {"--scope", "--property=Delegate=yes", "--unit=pytest-nixos-1-r.scope"} <= set(argv)
    assert {f"--property=MemoryMax={1 << 30}", "--property=TasksMax=100"} <= set(argv)


def _machine(root: Path, *, uid_map: str = "0 0 4294967295", subuid: str = "") -> Path:
    """Lay out what is asked of a machine about its user ids."""
    etc, proc = root / "etc", root / "proc"
    etc.mkdir()
    (proc / "self").mkdir(parents=True)
    (proc / "self/uid_map").write_text(uid_map)
    (etc / "subuid").write_text(subuid)
    return root


def test_a_range_that_somebody_has_is_not_taken(tmp_path: Path) -> None:
    host = bare_host("web")
    subuid = f"ann:{0x70000000}:65536\n# comment\nbroken\n"
    draws = iter([0, 0, 1])
    found = choose_range(host, draw=lambda _: next(draws), root=_machine(tmp_path, subuid=subuid))
    assert found == UserRange(base=0x70080000, size=0x80000)


@pytest.mark.parametrize("uid_map", ["0 100000 65536", "0 0 1\n1 100000 65535", ""])
def test_a_machine_with_few_user_ids_is_refused_with_the_option_that_tells_the_risk(
    tmp_path: Path, uid_map: str
) -> None:
    with pytest.raises(MachineError, match="root of the guest would be root") as caught:
        choose_range(bare_host("web"), root=_machine(tmp_path, uid_map=uid_map))
    assert "--nixos-backend vm" in caught.value.remedy
    assert "--nixos-container-root-is-machine-root" in caught.value.remedy


def test_a_host_with_containers_of_its_own_is_refused(tmp_path: Path) -> None:
    host = with_units("container@.service", "container@web.service")
    with pytest.raises(MachineError, match=r"container@web\.service") as caught:
        choose_range(host, root=_machine(tmp_path))
    assert "--nixos-backend vm" in caught.value.remedy


def test_the_template_of_containers_is_no_container(tmp_path: Path) -> None:
    host = with_units("container@.service")
    assert choose_range(host, root=_machine(tmp_path)).size == 0x80000


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_tree_is_given_away_without_following_its_links(tmp_path: Path) -> None:
    (tmp_path / "outside").touch()
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/link").symlink_to(tmp_path / "outside")
    (tree / "dir-link").symlink_to(tmp_path)
    own_tree(tree, 0x70000000)
    assert {os.lstat(p).st_uid for p in (tree, *tree.rglob("*"))} == {0x70000000}
    assert (tmp_path / "outside").stat().st_uid == os.geteuid()
    assert tmp_path.stat().st_uid == os.geteuid()


def test_the_memory_that_is_declared_is_the_limit(tmp_path: Path) -> None:
    asked = msgspec.structs.replace(spec(tmp_path), memory_mib=512)
    assert limits_of(asked).memory_bytes == 512 << 20
    half = limits_of(spec(tmp_path)).memory_bytes
    assert 0 < half < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_limits_of_cgroup_v1_are_made_below_this_process_own_group(tmp_path: Path) -> None:
    proc, mount = tmp_path / "proc", tmp_path / "memory"
    own = mount / "ci/job"
    own.mkdir(parents=True)
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("4:memory:/ci/job\n0::/\n")
    mounts = f"30 1 0:26 / {mount} rw - cgroup cgroup rw,memory\n31 1 0:27 / /x rw - cgroup2 c rw\n"
    (proc / "self/mountinfo").write_text(mounts)
    (own / "pytest-nixos-4194305-old").mkdir()
    groups = OldGroups("pytest-nixos-1-r", Limits(memory_bytes=12345, tasks=9), proc=proc)
    assert groups.paths == {"memory": own / "pytest-nixos-1-r"}
    assert (own / "pytest-nixos-1-r/memory.limit_in_bytes").read_text() == "12345"
    assert not (own / "pytest-nixos-4194305-old").exists()


def test_limits_that_were_reached_are_counted_in_both_versions(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\noom_kill 2\n")
    (tmp_path / "memory.events").write_text("low 0\noom 9\noom_kill 1\n")
    (tmp_path / "pids.events").write_text("max 3\n")
    assert reached(None, {"memory": tmp_path, "pids": tmp_path}) == {"memory": 2, "tasks": 3}
    assert reached(tmp_path, {}) == {"memory": 1, "tasks": 3}
    assert reached(tmp_path / "gone", {}) == {"memory": 0, "tasks": 0}


def test_a_machine_without_loop_devices_gets_a_directory_and_a_reason(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    why = make_disk(SubprocessRunner(), tmp_path, deadline=Deadline.after(60), dev=tmp_path / "dev")
    assert "loop devices" in why or "mkfs.ext4" in why
    assert (tmp_path / "disk").is_dir()


class _Slow(SubprocessRunner):
    """Every program of this machine takes longer than it may."""

    def run(self, argv: Sequence[str], *, deadline: Deadline, **_: Any) -> Completed:
        if deadline.limit_s < 1:
            time.sleep(deadline.remaining_s)
        raise ProcessTimeout(f"{argv[0]}: still running", remedy="look at what it waits for")


def test_a_mkfs_that_takes_too_long_costs_the_bound_or_the_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/sbin/{name}")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/loop-control").touch()
    (tmp_path / "disk").mkdir()
    left = make_disk(_Slow(), tmp_path, deadline=Deadline.after(600), dev=tmp_path / "dev")
    assert "took more than 120 s" in left
    assert (tmp_path / "disk").is_dir()
    with pytest.raises(ProcessTimeout):
        make_disk(_Slow(), tmp_path, deadline=Deadline.after(0.1), dev=tmp_path / "dev")


@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
def test_preparations_that_take_the_boots_time_are_a_late_boot(tmp_path: Path) -> None:
    class Strategy:
        def launch(self, *_: object, deadline: Deadline, **__: object) -> Launched:
            _Slow().run(["nix-store", "--load-db"], deadline=deadline)
            raise AssertionError

    with pytest.raises(BootError, match="not started: nix-store: still running") as caught:
        ContainerBackend(strategy=cast("Any", Strategy())).start(
            spec(tmp_path), deadline=Deadline.after(0.1)
        )
    assert "--nixos-boot-timeout" in caught.value.remedy


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
    assert link_addresses(bare_host("web")) == OWN


def test_a_declared_address_is_kept_and_the_stranger_joins_its_network() -> None:
    declared = {"eth0": ("2001:db8::1/64", "192.0.2.1/24")}
    assert link_addresses(with_addresses(declared)) == LinkAddresses(
        outside=IPv4Interface("192.0.2.2/24"), guest=None, target=IPv4Address("192.0.2.1")
    )


@pytest.mark.parametrize(
    "declared", [{"eth0": ("192.0.2.1/32",)}, {"ens3": ("192.0.2.1/24",)}, {"eth0": ()}]
)
def test_a_declaration_that_no_stranger_can_share_is_no_help(declared: Any) -> None:
    assert link_addresses(with_addresses(declared)) == OWN


def test_each_card_that_the_host_gives_an_address_has_a_link(tmp_path: Path) -> None:
    declared = {
        "eth0": ("192.0.2.1/24",),
        "eth1": ("198.51.100.1/24",),
        "eth2": (),
        "br0": ("10.0.0.1/24",),
    }
    addresses = link_addresses(with_addresses(declared))
    assert addresses.more == ("eth1",)
    assert guest_link_batch(addresses) == "link set eth0 up\nlink set eth1 up\n"
    assert outside_interface("eth1") == "outside1"


def test_no_root_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineError, match="needs root, this is user id 1000") as caught:
        ContainerBackend().start(spec(tmp_path), deadline=Deadline.after(60))
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
        strategy.launch(spec(run_dir), Console(), stack, deadline=Deadline.after(60))
    assert "systemd-nspawn" in caught.value.message
    assert "apt install systemd-container" in caught.value.remedy
    assert list(run_dir.iterdir()) == []


@pytest.mark.parametrize("tells_children", [True, False])
def test_the_leader_is_the_inner_first_process(tmp_path: Path, tells_children: bool) -> None:
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
        if tells_children:
            own = tmp_path / str(pid) / "task" / str(pid)
            own.mkdir(parents=True)
            below = [f"{child} " for child, (above, _) in table.items() if above == pid]
            (own / "children").write_text("".join(below))
    (tmp_path / "self").mkdir()
    assert find_leader(100, proc=tmp_path) == 103
    assert find_leader(101, proc=tmp_path) is None
    assert find_leader(999, proc=tmp_path) is None


@pytest.mark.skipif(
    not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(),
    reason="this kernel does not tell a process's children",
)
def test_a_leader_is_found_without_a_look_at_other_processes() -> None:
    looked: list[str] = []

    class Proc(type(Path())):  # type: ignore[misc]
        def iterdir(self) -> Any:
            looked.append(str(self))
            return super().iterdir()

    assert find_leader(os.getpid(), proc=Proc("/proc")) is None
    assert looked == []


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


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("declared", "given"),
    [
        ("0 2147483647", "0 524287"),
        ("100\t2147483647", "100 524287"),
        ("0 524287", ""),
        ("1 0", ""),
        ("600000 700000", ""),
        ("nonsense", ""),
    ],
)
def test_groups_that_may_ping_are_those_of_the_container(declared: str, given: str) -> None:
    host = bare_host("web", sysctls={"net.ipv4.ping_group_range": declared})
    users = UserRange(base=0x70000000, size=0x80000)
    assert ping_groups(host, users) == given
    assert ping_groups(host, None) == ""
    assert ping_groups(bare_host("web"), users) == ""
    argv = nspawn_argv(replace(PLAN, ping_groups=given), "systemd-nspawn")
    credential = f"--set-credential=sysctl.extra:net.ipv4.ping_group_range={given}"
    assert (credential in argv) is bool(given)
