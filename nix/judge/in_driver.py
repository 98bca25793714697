"""Judges a machine of a NixOS test from inside of the test driver: what ``lib.judge`` of this
project's flake puts into a ``testScript`` calls :func:`judge`.

The driver's own Python runs this file, with the standard library alone. pytest runs in a process and
an environment of its own, and asks here for each command that it wants run on the machine; the
machine's own ``execute`` runs it. All that is used of a machine is ``execute``, ``name``, ``out_dir``
and, to free one that hangs, ``shell``.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LOOK_S = 0.2
_CHUNK = 1 << 18
# A command that the run has given up waiting for holds the driver no longer than this.
_STUCK_S = 30.0
# How pytest ends where all checks passed, and where one failed.
_PASSED, _FAILED = 0, 1


class Judged(AssertionError):
    """A check of the machine failed."""


def judge(machine: Any, spec_file: str) -> None:
    """Judge a machine that the test has started, and write reports to the test's output.

    :param machine: the driver's.
    :param spec_file: JSON: ``name``, ``command`` (pytest with its arguments), ``enforce``.
    :raises Judged: if a check failed and `enforce` says so.
    :raises RuntimeError: if there was no verdict.
    """
    spec = json.loads(Path(spec_file).read_text())
    reports = Path(machine.out_dir) / f"pytest-nixos-{spec['name']}"
    reports.mkdir(parents=True, exist_ok=True)
    status = _judged(machine, spec["command"], reports)
    (reports / "exit-status").write_text(f"{status}\n")
    _offer_to_hydra(Path(machine.out_dir), reports)
    if status not in (_PASSED, _FAILED):
        raise RuntimeError(f"pytest-nixos: {spec['name']}: no verdict: pytest ended with {status}")
    if status == _FAILED and spec["enforce"]:
        raise Judged(f"pytest-nixos: {spec['name']}: failed checks are told above and in {reports}")


def _judged(machine: Any, command: list[str], reports: Path) -> int:
    """Run pytest and serve it until it ends; return its exit status."""
    with (
        tempfile.TemporaryDirectory(prefix="pytest-nixos-") as name,
        contextlib.ExitStack() as stack,
    ):
        directory = Path(name)
        # Accepts before anybody is told of it.
        path = directory / "driver"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(path))
        listener.listen()
        process = subprocess.Popen(
            [*command, "--nixos-test-driver", str(path), *_report_options(reports)],
            cwd=directory,
            env=os.environ | _private(directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        stack.callback(_end, process)
        with _told(process, reports / "log.txt"), _freed_at_its_end(process, machine):
            _serve(listener, process, machine)
        return process.wait()


def _report_options(reports: Path) -> list[str]:
    formats = {"html": "report.html", "json": "report.json", "sarif": "report.sarif"}
    options = [
        word
        for kind, name in formats.items()
        for word in ("--nixos-report", f"{kind}:{reports / name}")
    ]
    return [*options, "--junit-xml", str(reports / "junit.xml")]


def _private(directory: Path) -> dict[str, str]:
    """Return an environment in which pytest keeps what it writes to itself."""
    runtime = directory / "run"
    runtime.mkdir(mode=0o700)
    places = {"HOME": "home", "XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state"}
    return {
        **{variable: str(directory / place) for variable, place in places.items()},
        "XDG_RUNTIME_DIR": str(runtime),
        # The driver's packages are of its own Python.
        "PYTHONPATH": "",
    }


def _offer_to_hydra(out: Path, reports: Path) -> None:
    products = out / "nix-support" / "hydra-build-products"
    products.parent.mkdir(exist_ok=True)
    with products.open("a") as file:
        file.write(f"report html {reports} report.html\n")
        for kind, name in (
            ("json", "report.json"),
            ("sarif", "report.sarif"),
            ("junit", "junit.xml"),
        ):
            file.write(f"file {kind} {reports / name}\n")


def _serve(listener: socket.socket, process: subprocess.Popen[bytes], machine: Any) -> None:
    """Answer requests, one after the other, until pytest has ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        waiting: dict[socket.socket, bytes] = {}
        try:
            while process.poll() is None:
                for key, _ in selector.select(_LOOK_S):
                    if key.fileobj is listener:
                        client, _ = listener.accept()
                        waiting[client] = b""
                        selector.register(client, selectors.EVENT_READ)
                        continue
                    client = key.fileobj  # type: ignore[assignment]  # what was registered above
                    try:
                        data = client.recv(_CHUNK)
                        *requests, waiting[client] = (waiting[client] + data).split(b"\n")
                        for request in requests:
                            client.sendall(_answer(machine, request))
                    except OSError:
                        data = b""  # it has given up waiting
                    if not data:
                        selector.unregister(client)
                        client.close()
                        del waiting[client]
        finally:
            for client in waiting:
                client.close()


def _answer(machine: Any, request: bytes) -> bytes:
    """Run what a request asks for; every end of it is an answer."""
    try:
        asked = json.loads(request)
        status, output = machine.execute(asked["command"], timeout=asked["timeout_s"])
        answer = {"status": status, "output": output}
    except Exception as err:  # noqa: BLE001 - whatever the driver raises, pytest tells
        answer = {"error": f"{type(err).__name__}: {err}"}
    return json.dumps(answer).encode() + b"\n"


@contextlib.contextmanager
def _told(process: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """Copy what pytest prints to the build's log and to a file."""

    def copy() -> None:
        assert process.stdout is not None
        with log.open("wb") as file:
            for line in process.stdout:
                file.write(line)
                sys.stdout.write(line.decode(errors="replace"))
                sys.stdout.flush()

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        yield
    finally:
        if process.poll() is None:
            _end(process)
        thread.join()


@contextlib.contextmanager
def _freed_at_its_end(process: subprocess.Popen[bytes], machine: Any) -> Iterator[None]:
    """Free the driver from a command that does not come back after pytest has given it up: it waits
    for the guest without a limit of its own.
    """
    served = threading.Event()

    def watch() -> None:
        process.wait()
        shell = getattr(machine, "shell", None)
        if not served.wait(_STUCK_S) and shell is not None:
            with contextlib.suppress(OSError):
                shell.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        served.set()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
