"""Modules that answer right on NixOS, against small programs that print what real ones did."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nixos.testinfra import NixosHost, make_host
from pytest_nixos.testinfra.package import parse_store_path
from pytest_nixos.testinfra.process import is_comm_of
from pytest_nixos.testinfra.socket import parse_ss
from tests.unit.testinfra.test_host import Here

SHOW = """MainPID=0
Id={name}
Names={name}
WantedBy={wanted_by}
LoadState=loaded
ActiveState={active}
SubState=dead
FragmentPath=/etc/systemd/system/{name}
UnitFileState=linked
"""
Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Put a program with this bash text in front of all others."""

    def make(name: str, text: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
        path.chmod(0o755)

    return make


@pytest.fixture
def host(tmp_path: Path) -> NixosHost:
    import os

    return make_host(Here(f"{tmp_path}:{os.environ['PATH']}"), name="web-1")


def show(*, wanted_by: str = "", active: str = "inactive") -> str:
    unit = SHOW.format(name="sshd.service", wanted_by=wanted_by, active=active)
    return f'[ "$1 ${{@: -1}}" = "show sshd.service" ] || exit 9\ncat <<"END"\n{unit}END'


def test_a_linked_unit_is_enabled_when_something_wants_it(
    host: NixosHost, program: Program
) -> None:
    program("systemctl", show(wanted_by="multi-user.target", active="active"))
    sshd = host.service("sshd")
    assert (sshd.exists, sshd.is_running, sshd.is_enabled, sshd.is_masked) == (
        *(True, True, True, False),
    )
    program("systemctl", show())
    assert (sshd.exists, sshd.is_running, sshd.is_enabled) == (True, False, False)


def test_a_unit_that_systemd_does_not_know(host: NixosHost, program: Program) -> None:
    program("systemctl", 'printf "Id=ssh.service\\nLoadState=not-found\\nActiveState=inactive\\n"')
    ssh = host.service("ssh")
    assert (ssh.exists, ssh.is_running, ssh.is_enabled) == (False, False, False)


def test_systemd_that_does_not_answer_is_an_error(host: NixosHost, program: Program) -> None:
    program("systemctl", "echo Failed to connect to bus >&2; exit 1")
    with pytest.raises(RuntimeError, match="Failed to connect to bus"):
        _ = host.service("sshd").is_running


def test_templates_are_looked_for_among_unit_files(host: NixosHost, program: Program) -> None:
    program("systemctl", '[ "$1" = list-unit-files ] && echo "${@: -1} enabled enabled"')
    assert host.service("getty@").exists
    assert host.service("getty@").is_enabled
    assert not host.service("getty@").is_running
    program("systemctl", "exit 1")
    assert not host.service("getty@").exists


def test_waiting_ends_at_once_when_the_unit_fails(host: NixosHost, program: Program) -> None:
    program("systemctl", show(active="failed"))
    program("journalctl", 'echo "boom: ${@: -1}"')
    started = time.monotonic()
    with pytest.raises(AssertionError, match=r"(?s)sshd\.service: failed .*boom: --unit=sshd"):
        host.service("sshd").wait_until_running(timeout_s=20)
    assert time.monotonic() - started < 10


def test_waiting_ends_at_the_limit(host: NixosHost, program: Program) -> None:
    program("systemctl", show(active="activating"))
    program("journalctl", "true")
    with pytest.raises(AssertionError, match="activating"):
        host.service("sshd").wait_until_running(timeout_s=0.1)


STORE = "/nix/store/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-"
CLOSURE = "openssh-9.7p1 openssh-9.6p1 python3.11-requests-2.31.0 unit-nginx.service glibc-2.39-52-bin etc"


def nix_store(closure: str = CLOSURE, status: int = 0) -> str:
    paths = "".join(f"echo {STORE}{name}\n" for name in closure.split())
    direct = f"echo {STORE}openssh-9.6p1"
    return f'if [ "$2" = --references ]; then {direct}; exit {status}; fi\n{paths}exit {status}'


def test_packages_of_the_closure_are_installed(host: NixosHost, program: Program) -> None:
    program("nix-store", nix_store())
    assert host.package("openssh").is_installed
    assert host.package("openssh").is_in_system_path
    assert host.package("openssh").version == "9.6p1"
    assert host.package("python3.11-requests").version == "2.31.0"
    assert host.package("glibc").version == "2.39-52"
    assert not host.package("glibc").is_in_system_path
    assert not host.package("nginx").is_installed
    assert not host.package("openss").is_installed
    assert host.package("openssh").store_paths == [f"{STORE}openssh-9.6p1", f"{STORE}openssh-9.7p1"]
    with pytest.raises(AssertionError, match="nginx is not installed"):
        _ = host.package("nginx").version


def test_without_a_nix_database_absence_is_not_claimed(host: NixosHost, program: Program) -> None:
    program("nix-store", "exit 1")
    with pytest.raises(RuntimeError, match="cannot tell whether nginx is installed"):
        _ = host.package("nginx").is_installed


@pytest.mark.parametrize(
    ("stem", "name", "version"),
    [
        ("openssh-9.7p1", "openssh", "9.7p1"),
        ("linux-6.6.32-modules", "linux", "6.6.32"),
        ("nixos-system-web-24.05pre-git", "nixos-system-web", "24.05pre-git"),
        ("bash-interactive-5.2p26", "bash-interactive", "5.2p26"),
        ("xz-5.6.1-bin", "xz", "5.6.1"),
        ("system-path", "system-path", ""),
    ],
)
def test_store_names_come_apart_as_nix_does_it(stem: str, name: str, version: str) -> None:
    found = parse_store_path(f"{STORE}{stem}/bin/x")
    assert found is not None
    assert (found.name, found.version, found.path) == (name, version, f"{STORE}{stem}")
    assert parse_store_path(f"/nix/store/{stem}") is None


@pytest.mark.parametrize(
    ("comm", "program", "same"),
    [
        ("ollama", "ollama", True),
        (".ollama-wrapped", "ollama", True),
        (".systemd-resolv", "systemd-resolved", True),
        ("systemd-resolve", "systemd-resolved", True),
        (".python3.11-wra", "python3.11", True),
        ("ollama-runner", "ollama", False),
        (".ollama-wrappe", "ollama", False),
    ],
)
def test_wrapped_and_cut_program_names(comm: str, program: str, same: bool) -> None:
    assert is_comm_of(comm, program) is same


def test_processes_with_blanks_in_their_names(host: NixosHost, program: Program) -> None:
    columns = "".join(f"{word:<50} " for word in ("(tmux: server)", "0.5", "42", "0.1"))
    line = f"{columns}Sat Nov 21 01:35:19 2026 tmux new -s 'a  b'"
    program("ps", f"echo header; cat <<'END'\n{line}\nEND")
    (found,) = host.process.filter(pid=42)
    assert (found.comm, found.pcpu, found.pid) == ("(tmux: server)", 0.5, 42)
    assert (found.lstart, found.args) == ("Sat Nov 21 01:35:19 2026", "tmux new -s 'a  b'")


def test_a_real_process(host: NixosHost) -> None:
    import os

    me = host.process.get(pid=os.getpid())
    assert me.ppid == os.getppid()
    assert "python" in me.args


SS = """u_str LISTEN 0 4096 /run/systemd/private 12 * 0
u_dgr UNCONN 0 0 /run/systemd/notify 13 * 0
udp   UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*
udp   UNCONN 0 0 [fe80::1]%eth0:546 [::]:*
tcp   LISTEN 0 128 127.0.0.1:4222 0.0.0.0:*
tcp   LISTEN 0 128 *:22 *:*
tcp   LISTEN 0 128 0.0.0.0:80 0.0.0.0:*
tcp   LISTEN 0 128 [::]:443 [::]:*
tcp   ESTAB 0 0 10.0.2.15:22 10.0.2.2:54000
tcp   ESTAB 0 0 [::ffff:10.0.2.15]:22 [::ffff:10.0.2.3]:54001
odd
"""


def test_ss_listening() -> None:
    assert list(parse_ss(SS, listening=True)) == [
        ("unix", "/run/systemd/private"),
        ("udp", "127.0.0.53", 53),
        ("udp", "fe80::1", 546),
        ("tcp", "127.0.0.1", 4222),
        ("tcp", "::", 22),
        ("tcp", "0.0.0.0", 22),
        ("tcp", "0.0.0.0", 80),
        ("tcp", "::", 443),
    ]


@pytest.mark.parametrize(
    ("spec", "listening"),
    [
        ("tcp://22", True),
        ("tcp://80", False),
        ("tcp://443", False),
        ("tcp://0.0.0.0:80", True),
        ("tcp://10.1.2.3:80", True),
        ("tcp://:::80", False),
        ("tcp://127.0.0.1:4222", True),
        ("tcp://127.0.0.2:4222", False),
        ("tcp://0.0.0.0:4222", False),
        ("udp://127.0.0.53:53", True),
        ("unix:///run/systemd/private", True),
        ("unix:///run/systemd/notify", False),
    ],
)
def test_what_listens(host: NixosHost, program: Program, spec: str, listening: bool) -> None:
    program("ss", f"cat <<'END'\n{SS}END")
    assert host.socket(spec).is_listening is listening


def test_clients_by_local_address(host: NixosHost, program: Program) -> None:
    program("ss", f"cat <<'END'\n{SS}END")
    assert host.socket("tcp://22").clients == [("10.0.2.2", 54000), ("10.0.2.3", 54001)]
    assert host.socket("tcp://10.0.2.15:22").clients == [("10.0.2.2", 54000), ("10.0.2.3", 54001)]
    assert host.socket("tcp://:::22").clients == []
    assert host.socket("tcp://80").clients == []


def test_without_ss_the_kernels_tables_answer(tmp_path: Path) -> None:
    (tmp_path / "bash").symlink_to(str(shutil.which("bash")))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        bare = make_host(Here(str(tmp_path)))
        assert bare.socket(f"tcp://127.0.0.1:{port}").is_listening
        assert not bare.socket(f"tcp://{port}").is_listening
        assert f"tcp://127.0.0.1:{port}" in bare.socket.get_listening_sockets()
        with socket.create_connection(("127.0.0.1", port)) as client:
            address = client.getsockname()
            assert bare.socket(f"tcp://127.0.0.1:{port}").clients == [address]


def test_sysctl(host: NixosHost) -> None:
    assert host.sysctl("kernel.ostype") == "Linux"
    assert isinstance(host.sysctl("kernel.pid_max"), int)
    with pytest.raises(AssertionError, match="No such file"):
        host.sysctl("no.such.key")


def test_the_topmost_mount_is_the_mount_point(host: NixosHost, program: Program) -> None:
    table = (
        "rootfs / rootfs rw 0 0\nx / ext4 rw,relatime 0 0\nx /a\\040b tmpfs rw 0 0\nx / ext4 ro 0 0"
    )
    program(
        "cat",
        f"[ $1 = /proc/self/mounts ] && while read -r x; do echo \"$x\"; done <<'END'\n{table}\nEND",
    )
    root = host.mount_point("/")
    assert (root.filesystem, root.options) == ("ext4", ["ro"])
    assert host.mount_point("/a b").exists
    assert not host.mount_point("/a").exists
    assert [m.path for m in host.mount_point.get_mountpoints()] == ["/", "/a b"]


def test_a_partition_starts_where_it_does(host: NixosHost, program: Program) -> None:
    header = "RO    RA   SSZ   BSZ        StartSec            Size   Device"
    program("blockdev", f'echo "{header}"; echo "rw 256 512 4096 2048 1048576 $2"')
    device = host.block_device("/dev/vda1")
    assert (device.start_sector, device.is_partition, device.size) == (2048, True, 1048576)


@pytest.mark.parametrize(
    ("days", "expected"),
    [("", None), ("0", None), ("-1", None), ("20000", dt.datetime(2024, 10, 4))],  # noqa: DTZ001
)
def test_expiry(host: NixosHost, program: Program, days: str, expected: dt.datetime | None) -> None:
    program("getent", f'echo "alice:!:19000:0:99999:7::{days}:"')
    assert host.user("alice").expiration_date == expected


def test_a_missing_packet_filter_tool_is_named(host: NixosHost, tmp_path: Path) -> None:
    (tmp_path / "bash").symlink_to(str(shutil.which("bash")))
    bare = make_host(Here(str(tmp_path)))
    with pytest.raises(RuntimeError, match=r"no iptables: .*host\.nftables"):
        bare.iptables.rules()
    with pytest.raises(RuntimeError, match=r"no nft: networking\.nftables\.enable"):
        bare.nftables.tables()


NFT_CHAIN = """table inet nixos-fw {
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept comment "trusted interfaces"
		ct state vmap { invalid : drop, established : accept,
				related : accept }
	}
}"""


def test_nftables_rules_are_one_line_each(host: NixosHost, program: Program) -> None:
    program(
        "nft", f"[ \"$*\" = 'list chain inet nixos-fw input' ] && cat <<'END'\n{NFT_CHAIN}\nEND"
    )
    assert host.nftables.rules("input", table="nixos-fw") == [
        'iifname "lo" accept comment "trusted interfaces"',
        "ct state vmap { invalid : drop, established : accept, related : accept }",
    ]


def test_nftables_objects(host: NixosHost, program: Program) -> None:
    table = '"family": "inet", "table": "t"'
    chain = f'{{"chain": {{{table}, "name": "input", "hook": "input", "policy": "drop"}}}}'
    more = f'{{"set": {{{table}, "name": "s", "elem": [22, 80]}}}}'
    listed = f'{{"nftables": [{{"metainfo": {{}}}}, {{"table": {{"family": "inet", "name": "t"}}}}, {chain}, {more}]}}'
    program("nft", f"echo '{listed}'")
    assert host.nftables.tables() == [("inet", "t")]
    assert host.nftables.chain("input", table="t")["policy"] == "drop"
    assert host.nftables.elements("s", table="t") == [22, 80]
    with pytest.raises(KeyError):
        host.nftables.chain("input", table="other")


def test_a_service_that_its_socket_starts_says_so(host: NixosHost, program: Program) -> None:
    # As nixpkgs declares sshd with startWhenNeeded: no sshd.service, a socket, and sshd@.service.
    program(
        "systemctl",
        """case $* in
*sshd.socket*) printf 'Id=sshd.socket\\nNames=sshd.socket\\nLoadState=loaded\\nActiveState=active\\nFragmentPath=/x\\n' ;;
*) printf 'Id=sshd.service\\nNames=sshd.service\\nLoadState=not-found\\nActiveState=inactive\\n' ;;
esac""",
    )
    service = host.service("sshd")
    assert not service.is_running
    assert service.activated_by == ("sshd.socket",)
    assert service.is_socket_activated
    assert repr(service) == "<service sshd: not running now, started by sshd.socket>"


def test_a_service_on_its_own_is_shown_by_name(host: NixosHost, program: Program) -> None:
    program("systemctl", show())
    assert repr(host.service("sshd")) == "<service sshd>"
    assert not host.service("sshd").is_socket_activated


@pytest.mark.parametrize(
    ("routes", "addresses", "expected"),
    [
        ('[{"dst":"default","dev":"wan0","metric":200},{"dst":"default","dev":"lan0","metric":100}]', "[]", "lan0"),
        ("[]", '[{"ifname":"eth0","addr_info":[{"local":"10.0.0.2"}]},{"ifname":"x","addr_info":[]}]', "eth0"),
        ("", '[{"ifname":"eth0","addr_info":[{"local":"10.0.0.2"}]}]', "eth0"),
    ],
)  # fmt: skip
def test_the_default_interface(
    host: NixosHost, program: Program, routes: str, addresses: str, expected: str
) -> None:
    program("ip", f"case $* in *route*) echo '{routes}' ;; *) echo '{addresses}' ;; esac")
    assert host.interface.default().name == expected


def test_no_interface_is_the_default_where_two_could_be(host: NixosHost, program: Program) -> None:
    two = '[{"ifname":"a","addr_info":[1]},{"ifname":"b","addr_info":[1]}]'
    program("ip", f"case $* in *route*) echo '[]' ;; *) echo '{two}' ;; esac")
    with pytest.raises(AssertionError, match="2 interfaces have an address for others: a, b"):
        host.interface.default()


HASH = "0" * 32


def test_a_version_that_nobody_can_tell_is_said(host: NixosHost, program: Program) -> None:
    program("nix-store", f"echo /nix/store/{HASH}-tool")
    package = host.package("tool")
    assert package.is_installed
    with pytest.raises(AssertionError, match="names no version"):
        _ = package.version


def test_a_version_is_read_from_what_a_program_says() -> None:
    from pytest_nixos.testinfra.package import _NUMBER

    for said, number in (("jq-1.7", "1.7"), ("tool version 1.7.1-rc2 (x)", "1.7.1-rc2")):
        found = _NUMBER.search(said)
        assert found is not None
        assert found[0] == number


def test_every_module_of_testinfra_has_its_row() -> None:
    from testinfra.modules import modules

    page = (Path(__file__).parents[3] / "docs/reference/testinfra.md").read_text()
    assert [name for name in modules if f"| `{name}` |" not in page] == []
