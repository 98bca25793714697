"""HTTP asked from a guest's shell: with curl, and with nothing but bash and coreutils."""

from __future__ import annotations

import http.server
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import ProbeOutput, RunCommand, observe
from pytest_nixos.observe.network.http import HttpRequest
from pytest_nixos.observe.network.http import http as http_probe
from tests.unit.observe.here import here


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        body = (
            b"\x00binary\nHTTP/1.1 500 no" if self.path == "/binary?a=b" else b'{"version": "0.1"}'
        )
        if self.path == "/long":
            body = b"x" * 100_000
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.end_headers()
        self.wfile.write(sent[::-1])

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["curl", "bash"])
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> RunCommand:
    tools = ["bash", "timeout", "head", *(["curl"] if request.param == "curl" else [])]
    for tool in tools:
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"this machine has no {tool}")
        (tmp_path / tool).symlink_to(found)

    def run(command: str) -> CommandResult:
        done = SubprocessRunner().run(
            ["bash", "-c", command], deadline=Deadline.after(20), env={"PATH": str(tmp_path)}
        )
        return CommandResult(
            command=command,
            exit_status=done.exit_status,
            stdout=done.stdout,
            stderr=b"",
            duration_s=0,
        )

    return run


def test_status_headers_and_body(guest: RunCommand, base: str) -> None:
    good, missing, binary = observe(
        guest, http_probe([f"{base}/api/version", f"{base}/missing", f"{base}/binary?a=b"])
    )
    assert (good.status, good.text) == (200, '{"version": "0.1"}')
    assert good.headers["content-type"] == "application/json"
    assert good.succeeded
    assert missing.status == 404
    assert not missing.succeeded
    assert binary.body == b"\x00binary\nHTTP/1.1 500 no"


def test_a_body_can_be_sent(guest: RunCommand, base: str) -> None:
    request = HttpRequest(url=f"{base}/", method="POST", body='it\'s $(id)\n\t\\n "x"')
    (answer,) = observe(guest, http_probe([request]))
    assert (answer.status, answer.text) == (201, '"x" n\\\t\n)di($ s\'ti')


def test_nobody_listens(guest: RunCommand) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (answer,) = observe(guest, http_probe([f"http://127.0.0.1:{port}/"]))
    assert answer.status is None
    assert answer.failure


def test_a_port_that_no_machine_has(guest: RunCommand) -> None:
    (answer,) = observe(guest, http_probe(["http://127.0.0.1:114340/"]))
    assert answer.status is None
    assert answer.failure


def test_a_silent_server_ends_at_the_limit(guest: RunCommand) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        (answer,) = observe(guest, http_probe([url], timeout_s=0.3))
    assert answer.status is None
    assert answer.failure


def test_a_long_body_is_cut(guest: RunCommand, base: str) -> None:
    (answer,) = observe(guest, http_probe([f"{base}/long"], limit_bytes=5000))
    assert answer.status == 200
    assert 4000 < len(answer.body) < 5000


def test_an_answer_that_is_too_long_takes_no_room_of_others(guest: RunCommand, base: str) -> None:
    urls = [f"{base}/missing", f"{base}/long", f"{base}/api/version"]
    missing, long, good = observe(guest, http_probe(urls, limit_bytes=5000))
    assert (missing.status, long.status, good.status) == (404, 200, 200)
    assert 4000 < len(long.body) < 5000
    assert good.text == '{"version": "0.1"}'


def test_one_that_fails_is_told_between_others(guest: RunCommand, base: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}/"
    urls = [f"{base}/api/version", closed, f"{base}/binary?a=b", closed]
    first, refused, second, last = observe(guest, http_probe(urls))
    assert (first.text, second.body) == ('{"version": "0.1"}', b"\x00binary\nHTTP/1.1 500 no")
    assert refused.status is last.status is None
    assert refused.failure and last.failure


def test_one_curl_asks_for_all_and_others_cannot_read_the_mark(base: str, tmp_path: Path) -> None:
    curl, told = shutil.which("curl"), tmp_path / "told"
    if curl is None:
        pytest.skip("this machine has no curl")
    script = tmp_path / "curl"
    script.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >>{told}\nexec {curl} "$@"\n')
    script.chmod(0o755)
    answers = observe(
        lambda command: here(f"PATH={tmp_path}:$PATH\n{command}"),
        http_probe([f"{base}/api/version"] * 3),
    )
    assert [answer.text for answer in answers] == ['{"version": "0.1"}'] * 3
    assert told.read_text() == "--config -\n"


def test_an_answer_after_a_provisional_one_counts() -> None:
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n\r\nmade"
    text = b"\nM=tool curl\n\nM=answer\n" + raw + b"\nM=status 0\n"
    printed = ProbeOutput(stdout=text, exit_status=0, mark="M")
    (answer,) = http_probe(["http://a/"]).parse(printed)
    assert (answer.status, answer.text) == (201, "made")


def test_answers_that_never_came_are_failures() -> None:
    answers = http_probe(["http://a/", "http://b/"]).parse(ProbeOutput(stdout=b"", exit_status=1))
    assert [answer.status for answer in answers] == [None, None]
