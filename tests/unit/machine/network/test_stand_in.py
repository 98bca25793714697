"""The small internet of a run: names and the time, and what is no question gets no answer."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.sandbox import Sandbox, sandbox_refusal
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.network.stand_in import (
    HandedOver,
    StandIn,
    answer_name,
    answer_time,
    name_resolver,
)

SERVER = IPv4Address("10.233.0.1")


def ask(name: str, kind: str = "A") -> DNSRecord:
    reply = answer_name(DNSRecord.question(name, kind).pack(), SERVER)
    assert reply is not None
    return DNSRecord.parse(reply)


def test_every_name_has_the_servers_address() -> None:
    reply = ask("acme-v02.api.letsencrypt.org")
    assert [str(record.rdata) for record in reply.rr] == [str(SERVER)]
    assert reply.header.qr == 1


def test_a_name_has_no_address_of_the_other_family() -> None:
    reply = ask("example.org", "AAAA")
    assert reply.header.rcode == RCODE.NOERROR and reply.rr == []


@pytest.mark.parametrize("name", ["db", "a.invalid", "printer.local", "2.0.233.10.in-addr.arpa"])
def test_what_no_internet_has_is_not_there(name: str) -> None:
    assert ask(name).header.rcode == RCODE.NXDOMAIN


@pytest.mark.parametrize("packet", [b"", b"\0" * 12, b"\xff" * 40, b"\x01\x02garbage"])
def test_what_is_no_question_gets_no_answer(packet: bytes) -> None:
    assert answer_name(packet, SERVER) is None
    assert answer_time(packet, 0.0) is None


def test_an_answer_is_no_question() -> None:
    reply = DNSRecord.question("example.org", QTYPE.A and "A").reply().pack()
    assert answer_name(reply, SERVER) is None


def test_the_time_is_told_as_sntp_clients_check_it() -> None:
    sent = struct.pack("!II", 1, 2)
    reply = answer_time(b"\x23" + b"\0" * 39 + sent, 1_700_000_000.5)

    assert reply is not None and len(reply) == 48
    assert reply[0] & 7 == 4 and reply[0] >> 6 == 0 and 0 < reply[1] < 16
    assert reply[24:32] == sent
    seconds, fraction = struct.unpack("!II", reply[40:48])
    assert seconds == 1_700_000_000 + 2_208_988_800 and fraction == 1 << 31


def test_a_guest_that_leaves_its_resolver_alone_finds_the_server(tmp_path: Path) -> None:
    name_resolver(tmp_path, SERVER)
    assert (tmp_path / "etc/resolv.conf").read_text() == "nameserver 10.233.0.1\n"


CHRONYD = shutil.which("chronyd") or os.environ.get("PYTEST_NIXOS_CHRONYD", "")


@contextlib.contextmanager
def namespace_with(address: IPv4Address) -> Iterator[int]:
    """Yield a process in a network namespace of its own that has `address`."""
    up = f"ip link set lo up; ip addr add {address}/32 dev lo; echo up; exec sleep infinity"
    argv = ("unshare", "--net", "sh", "-c", up)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "up\n"
            yield process.pid
        finally:
            process.kill()


@pytest.mark.skipif(not CHRONYD, reason="no chronyd here, and PYTEST_NIXOS_CHRONYD names none")
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_chrony_takes_the_time_that_is_told() -> None:
    with namespace_with(SERVER) as pid:
        served = StandIn(pid, SERVER)
        try:
            asked = (CHRONYD, "-Q", "-t", "20", "-u", "root", f"server {SERVER} iburst")
            done = subprocess.run(
                ("nsenter", f"--target={pid}", "--net", *asked),
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        finally:
            served.close()
    # It refuses a server that is not synchronised, or whose answer is not to its question.
    assert done.returncode == 0, done.stderr
    assert "System clock wrong by" in done.stderr


# A client of the network that a sandbox makes: argument by argument, who is asked for what.
CLIENT = """
import socket, sys
def ask(server, port, words):
    with socket.socket(type=socket.SOCK_DGRAM) as made:
        made.settimeout(10)
        made.sendto(words, (server, port))
        reply, sender = made.recvfrom(4096)
        assert sender == (server, port), sender
        return reply
time = b"\\x23" + bytes(47)
question = bytes.fromhex("123401000001000000000000") + b"\\4acme\\7example\\3org\\0\\0\\1\\0\\1"
for server in ("127.0.0.1", "1.1.1.1", "10.0.2.2"):
    assert ask(server, 53, question)[-4:] == bytes([10, 0, 2, 2])
    assert len(ask(server, 123, time)) == 48
with socket.socket() as made:
    try:
        made.connect(("93.184.216.34", 443))
    except ConnectionRefusedError:
        print(open("/etc/resolv.conf").read(), end="")
"""


@pytest.fixture
def made_sandboxes() -> None:
    if sandbox_refusal(SubprocessRunner()):
        pytest.skip("no user namespaces here")


@pytest.mark.usefixtures("made_sandboxes")
def test_a_sandbox_hands_over_a_network_where_every_address_answers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sandbox = Sandbox(
        writable=(tmp_path,), readable=(Path(sys.base_prefix).resolve(),), served_by=path
    )
    served = HandedOver(path)
    try:
        # The second one as after a reboot of the VM.
        for _ in range(2):
            done = SubprocessRunner().run(
                sandbox.argv((os.path.realpath(sys.executable), "-I", "-S", "-c", CLIENT)),
                deadline=Deadline.after(60.0),
            )
            assert done.stdout_text == "nameserver 127.0.0.1\n", done.stderr_text
    finally:
        served.close()
        served.close()
    assert not path.exists()


@pytest.mark.usefixtures("made_sandboxes")
def test_a_sandbox_whose_network_nobody_takes_starts_nothing(tmp_path: Path) -> None:
    sandbox = Sandbox(writable=(tmp_path,), served_by=tmp_path / "s")
    done = SubprocessRunner().run(
        sandbox.argv(("/bin/sh", "-c", "echo started")), deadline=Deadline.after(60.0)
    )
    assert (done.exit_status, done.stdout_text) == (125, "")
