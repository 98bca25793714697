"""testinfra's modules on a NixOS guest: each answer is held against the host config or another
source in the guest.

Run by ``tests/machine/test_on_guest.py``, or by hand: ``pytest --nixos-flake REF#HOST <this
file>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pytest_nixos import HostConfig, Machine, observe
from pytest_nixos.errors import CommandTimeout, NixosError
from pytest_nixos.testinfra import NixosHost


@pytest.fixture
def scratch_unit(host: NixosHost, nixos_machine: Machine) -> Iterator[str]:
    """A unit outside any target, as NixOS links those that nothing wants."""
    name = "pytest-nixos-scratch"
    unit = "[Service]\\nExecStart=/run/current-system/sw/bin/sleep 1000\\n"
    nixos_machine.run(
        f'mkdir -p /run/systemd/system && printf "{unit}" >/run/{name}.service'
        f" && ln -s /run/{name}.service /run/systemd/system/{name}.service && systemctl daemon-reload"
    )
    yield name
    nixos_machine.run(
        f"systemctl stop {name}; rm -f /run/{name}.service /run/systemd/system/{name}.service;"
        " systemctl daemon-reload; systemctl reset-failed"
    )


def test_system_info(host: NixosHost, nixos_host_config: HostConfig) -> None:
    info = host.system_info
    assert (info.type, info.distribution) == ("linux", "nixos")
    assert info.release == nixos_host_config.release
    assert info.arch == nixos_host_config.system.split("-")[0]
    assert info.codename == info.codename.lower()


def test_declared_units_exist_and_those_that_are_wanted_are_enabled(
    host: NixosHost, nixos_host_config: HostConfig
) -> None:
    wanted = [
        unit
        for unit in nixos_host_config.units.values()
        if unit.enabled
        and unit.name.endswith(".service")
        and "@" not in unit.name
        and "multi-user.target" in unit.wanted_by
    ]
    assert wanted
    for unit in wanted[:6]:
        service = host.service(unit.name.removesuffix(".service"))
        assert service.exists, unit.name
        assert service.is_enabled, unit.name
        assert not service.is_masked, unit.name


def test_a_prefix_of_a_unit_is_no_unit(host: NixosHost) -> None:
    assert host.service("systemd-journald").exists
    assert host.service("systemd-journald").is_running
    assert not host.service("systemd-journal").exists
    assert not host.service("systemd-journal").is_running
    assert not host.service("systemd-journal").is_enabled


def test_a_linked_unit_that_nothing_wants_is_not_enabled(
    host: NixosHost, scratch_unit: str
) -> None:
    service = host.service(scratch_unit)
    state = host.run("systemctl is-enabled %s", service.unit).stdout.strip()
    assert state.startswith("linked")
    assert (service.exists, service.is_enabled, service.is_running) == (True, False, False)
    host.run_expect([0], "systemctl start %s", scratch_unit)
    service.wait_until_running(timeout_s=30)
    assert service.is_running
    assert service.systemd_properties["ActiveState"] == "active"


def test_waiting_for_a_unit_that_fails_ends_at_once(
    host: NixosHost, scratch_unit: str, nixos_machine: Machine
) -> None:
    nixos_machine.run(
        f"printf '[Service]\\nType=oneshot\\nExecStart=/bin/sh -c \"echo why it failed; exit 3\"\\n' >/run/{scratch_unit}.service;"
        f" systemctl daemon-reload; systemctl start {scratch_unit}"
    )
    with pytest.raises(AssertionError, match="why it failed"):
        host.service(scratch_unit).wait_until_running(timeout_s=120)


def test_packages(host: NixosHost) -> None:
    # The shell's own path in the store is the truth about the shell.
    path = host.check_output("readlink -f /run/current-system/sw/bin/bash")
    name = re.match(r"/nix/store/[^-]+-([a-z-]+?)-([0-9][^/]*)/", path)
    assert name is not None, path
    shell = host.package(name[1])
    assert shell.is_installed
    assert shell.is_in_system_path
    assert name[2] in {shell.version, *(p.rsplit("-", 1)[-1] for p in shell.store_paths)}
    assert not host.package("no-such-package").is_installed


def test_sockets_agree_with_the_kernels_tables(host: NixosHost, nixos_machine: Machine) -> None:
    tables = observe.observe(nixos_machine.run, observe.sockets())
    ports = {s.port for s in tables.listening(observe.Protocol.TCP)}
    assert {
        int(s.rsplit(":", 1)[1]) for s in host.socket.get_listening_sockets() if s.startswith("tcp")
    } == ports
    assert host.socket("unix:///run/systemd/private").is_listening
    assert not host.socket("unix:///run/systemd/nothing").is_listening
    for port in ports:
        addresses = tables.addresses(observe.Protocol.TCP, port)
        for address in addresses:
            assert host.socket(f"tcp://{address}:{port}").is_listening
        everywhere = {"0.0.0.0", "::"} <= set(addresses)
        assert host.socket(f"tcp://{port}").is_listening is everywhere


def test_sysctls(host: NixosHost, nixos_host_config: HostConfig) -> None:
    for key in list(nixos_host_config.sysctls)[:10]:
        try:
            value = host.sysctl(key)
        except AssertionError:
            assert not host.file(f"/proc/sys/{key.replace('.', '/')}").exists
            continue
        assert str(value) == host.check_output("sysctl -n %s", key)
    assert isinstance(host.sysctl("kernel.pid_max"), int)
    assert host.sysctl("kernel.ostype") == "Linux"


def test_mounts(host: NixosHost) -> None:
    assert host.mount_point("/proc").filesystem == "proc"
    assert not host.mount_point("/nix/no-such-mount").exists
    paths = [mount.path for mount in host.mount_point.get_mountpoints()]
    assert len(set(paths)) == len(paths)
    # Writing tells which of several mounts on one path counts.
    for path in ("/nix/store", "/"):
        mount = host.mount_point(path)
        if mount.exists:
            written = host.run("f=%s/.pytest-nixos; touch $f && rm $f", path).rc == 0
            assert written is ("rw" in mount.options), path


def test_processes(host: NixosHost) -> None:
    first = host.process.get(pid=1)
    assert first.comm == "systemd"
    assert (first.user, first.ppid) == ("root", 0)
    assert host.process.filter(comm="systemd-journald"), "the kernel cuts its name at 15 characters"
    with pytest.raises(RuntimeError, match="No process found"):
        host.process.get(comm="no-such-program")


def test_users_and_groups(host: NixosHost, nixos_host_config: HostConfig) -> None:
    assert (host.user().name, host.user("root").uid) == ("root", 0)
    for declared in [u for u in nixos_host_config.users.values() if u.is_normal][:3]:
        user = host.user(declared.name)
        assert user.exists
        assert (user.home, user.group) == (declared.home, declared.group)
        assert set(declared.extra_groups) <= set(user.groups)
        assert user.expiration_date is None
    assert not host.user("no-such-user").exists
    assert host.group("root").gid == 0
    assert not host.group("no-such-group").exists


def test_files_through_links_into_the_store(host: NixosHost) -> None:
    os_release = host.file("/etc/os-release")
    assert os_release.is_symlink
    assert os_release.linked_to.startswith("/nix/store/")
    assert os_release.contains("^ID=")
    assert (os_release.user, os_release.mode) == ("root", 0o444)
    content = os_release.content
    assert os_release.size == len(content)
    assert os_release.sha256sum == __import__("hashlib").sha256(content).hexdigest()
    assert host.file("/etc/shadow").mode & 0o007 == 0
    assert host.file("/run/current-system").linked_to.startswith("/nix/store/")


def test_interfaces(host: NixosHost) -> None:
    assert "lo" in host.interface.names()
    assert host.interface("lo").addresses[0] == "127.0.0.1"
    assert host.interface("lo").exists
    assert not host.interface("no0").exists


def test_addresses(host: NixosHost) -> None:
    assert host.addr("localhost").is_resolvable
    ports = [s for s in host.socket.get_listening_sockets() if s.startswith("tcp://0.0.0.0:")]
    for port in [int(s.rsplit(":", 1)[1]) for s in ports][:2]:
        assert host.addr("127.0.0.1").port(port).is_reachable
    assert not host.addr("127.0.0.1").port(1).is_reachable


def test_packet_filter(host: NixosHost, nixos_host_config: HostConfig) -> None:
    firewall = nixos_host_config.firewall
    if not firewall.enabled:
        pytest.skip("the host has no firewall")
    if firewall.backend == "nftables":
        assert ("inet", "nixos-fw") in host.nftables.tables()
        assert host.nftables.chain("input", table="nixos-fw")["policy"] == "drop"
        assert any(
            "icmpv6" in rule for rule in host.nftables.rules("input-allow", table="nixos-fw")
        )
        if not host.exists("iptables"):
            with pytest.raises(RuntimeError, match=r"host\.nftables"):
                host.iptables.rules()
    else:
        rules = host.iptables.rules(chain="nixos-fw")
        for span in firewall.everywhere.tcp:
            port = str(span).replace("-", ":")
            assert any(f"--dport {port} " in rule for rule in rules)


def test_commands(host: NixosHost) -> None:
    done = host.run("printf 'a\\377'; echo caf\u00e9 >&2; exit 7")
    assert (done.rc, done.stdout_bytes, done.stderr) == (7, b"a\xff", "caf\u00e9\n")
    assert host.check_output("echo %s", "it's $HOME") == "it's $HOME"
    assert host.run("wc -c", stdin=b"\0" * 1000).stdout.strip() == "1000"
    assert host.exists("nixos-version")
    assert not host.exists("no-such-program")
    assert host.find_command("bash").startswith("/")
    assert host.environment()["HOME"] == "/root"


def test_a_command_that_hangs_is_ended_and_the_channel_goes_on(host: NixosHost) -> None:
    with pytest.raises(CommandTimeout):
        host.run("sleep 600", timeout_s=1)
    assert host.check_output("echo on") == "on"


def test_another_user(host: NixosHost, nixos_host_config: HostConfig) -> None:
    names = [u.name for u in nixos_host_config.users.values() if u.is_normal] or ["nobody"]
    with host.sudo(names[0]):
        assert host.check_output("id -un") == names[0]
    assert host.check_output("id -un") == "root"


def test_block_devices(host: NixosHost) -> None:
    disks = host.check_output("ls /dev/vd? /dev/zram? 2>/dev/null || true").split()
    for disk in disks:
        device = host.block_device(disk)
        assert device.size == int(host.check_output("blockdev --getsize64 %s", disk))
        assert (device.start_sector, device.is_partition) == (0, False)


# Modules that ask a program, which the closure of these hosts has or has not.
ASKING = {
    "docker": lambda host: host.docker.get_containers(),
    "podman": lambda host: host.podman.get_containers(),
    "puppet": lambda host: host.puppet_resource("user", "root"),
    "facter": lambda host: host.facter(),
    "salt-call": lambda host: host.salt("test.ping"),
    "supervisorctl": lambda host: host.supervisor.get_services(),
    "pip": lambda host: host.pip.get_packages(),
}


@pytest.mark.parametrize("program", ASKING)
def test_a_program_that_the_closure_lacks_is_named_not_taken_for_an_answer(
    host: NixosHost, program: str
) -> None:
    if host.exists(program):
        pytest.skip(f"the host has {program}")
    with pytest.raises((AssertionError, NixosError, RuntimeError, ValueError), match=program):
        ASKING[program](host)


def test_ansible_is_not_for_these_machines(host: NixosHost) -> None:
    with pytest.raises(RuntimeError, match=r"[Aa]nsible"):
        host.ansible("setup")


def test_modules_forget_in_a_new_epoch(host: NixosHost, nixos_machine: Machine) -> None:
    before = host.system_info
    assert host.system_info is before
    nixos_machine.invalidate()
    assert host.system_info is not before
