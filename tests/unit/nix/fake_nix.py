"""A Nix that answers from memory, and a flake over it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_nixos.local.process import Completed, LineSink, ProcessTimeout
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef, nix_quote
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from tests.support.runner import FakeRunner
from tests.unit.host_documents import document

FLAKE = FlakeRef("/f")
FIXED = {"locked": {"narHash": "sha256-x"}, "locks": {"root": "root", "nodes": {"root": {}}}}
LOOSE = {"locked": {"dirtyRev": "x"}, "locks": FIXED["locks"]}


@dataclass
class FakeNix(FakeRunner):
    """A runner that plays a Nix: answers by subcommand, evaluations by a function of the
    request.
    """

    version: str = "nix (Nix) 2.8.0"
    metadata: Mapping[str, Any] = field(default_factory=lambda: FIXED)
    broken: frozenset[str] = frozenset()
    words: str = "x"
    host: Mapping[str, Any] = field(default_factory=document)
    stderr: tuple[str, ...] = ()
    exit_status: int = 0
    timeout: bool = False
    valid: tuple[str, ...] = ()
    prefetched: Mapping[str, Any] = field(default_factory=dict)
    peak_bytes: int | None = None
    homes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__init__(self._play)

    def _play(self, argv: Sequence[str], on_stderr_line: LineSink | None) -> Completed:
        words = set(argv)
        if "prefetch" in words:
            return self._done(argv, json.dumps(self.prefetched), 0 if self.prefetched else 1)
        if "--version" in words:
            return self._done(argv, self.version)
        if "metadata" in words:
            return self._done(argv, json.dumps(self.metadata))
        if self.timeout:
            raise ProcessTimeout("late", remedy="")
        for line in self.stderr:
            assert on_stderr_line is not None
            on_stderr_line(line)
        if self.exit_status:
            return self._done(argv, "", self.exit_status)
        return self._answer(argv, words, on_stderr_line)

    def _answer(
        self, argv: Sequence[str], words: set[str], on_stderr_line: LineSink | None
    ) -> Completed:
        if "eval" in words:
            return self._eval(argv, on_stderr_line)
        if "build" in words:
            return self._done(argv, json.dumps([{"outputs": {"out": "/nix/store/o"}}]))
        if "nix-store" in words:
            return self._done(argv, "", 0 if argv[-1] in self.valid else 1)
        if "path-info" in words:
            return self._done(argv, "/nix/store/a\n/nix/store/b\n")
        return self._done(argv, "log line\n")

    def evaluations(self) -> list[tuple[str, ...]]:
        return [call for call in self.calls if "eval" in call]

    def _eval(self, argv: Sequence[str], sink: LineSink | None) -> Completed:
        expression = argv[-1]
        if expression == "builtins.attrNames":
            of_homes = any(word.endswith("#homeConfigurations") for word in argv)
            return self._done(argv, json.dumps(self.homes if of_homes else ["db", "web"]))
        request = request_of(expression)
        if "options" not in request:
            return self._done(argv, json.dumps({"derivation": self.host.get("derivation")}))
        skipped = set(request["skippedFacts"])
        asked = {".".join(names) for names in request["options"]} | (
            set(self.host["facts"]) - skipped
        )
        if self.broken & (asked | {"machine"}):
            assert sink is not None
            sink(
                "@nix "
                + json.dumps(
                    {"action": "msg", "level": 0, "msg": "error: x", "raw_msg": self.words}
                )
            )
            return self._done(argv, "", 1)
        answers = [{"state": "present", "value": ".".join(names)} for names in request["options"]]
        facts = {name: fact for name, fact in self.host["facts"].items() if name not in skipped}
        return self._done(
            argv,
            json.dumps(
                {**self.host, "facts": facts, "options": answers, "machineOptions": answers}
            ),
        )

    def _done(self, argv: Sequence[str], stdout: str, exit_status: int = 0) -> Completed:
        return Completed(
            argv=tuple(argv),
            exit_status=exit_status,
            stdout=stdout.encode(),
            stderr=b"",
            peak_bytes=self.peak_bytes,
        )


def request_of(expression: str) -> dict[str, Any]:
    line = next(line for line in expression.splitlines() if "fromJSON" in line)
    literal = line.partition("fromJSON ")[2].removesuffix(";")
    text = literal[1:-1].replace("\\${", "${").replace('\\"', '"').replace("\\\\", "\\")
    assert nix_quote(text) == literal
    found: dict[str, Any] = json.loads(text)
    return found


def nix(fake: FakeNix, **settings: Any) -> Nix:
    return Nix(runner=fake, settings=NixSettings(**settings))


def flake(fake: FakeNix, *, script: str = "s", **settings: Any) -> Flake:
    """Open the flake anew, as each run does."""
    return Flake(FLAKE, nix(fake, **settings), Instrumentation(channel_script=script))
