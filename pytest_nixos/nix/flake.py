"""What can be asked of the flake itself, on the host machine: lock file, outputs, development shells, a rebuild."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_nixos.local.process import Completed, ProcessTimeout
from pytest_nixos.local.timing import Deadline
from pytest_nixos.nix import flake_argv
from pytest_nixos.nix.dev_shell import DevShell, ShellVisit
from pytest_nixos.nix.dev_shell_visit import KEPT, VISITED, scratch_copy, visit, visit_environment
from pytest_nixos.nix.evaluation import Nix
from pytest_nixos.nix.failures import evaluation_failure
from pytest_nixos.nix.log import NixLog
from pytest_nixos.nix.metadata import subfolder
from pytest_nixos.nix.rebuild import Rebuild, different, rebuildable
from pytest_nixos.nix.refs import FlakeRef, HostRef

__all__ = ["DirenvVisit", "Flake", "FlakeHost", "NixAnswer"]

Json = Any

_SHELL_LIMIT_S = 1800.0
_QUICK_S = 120.0
_AT_ONCE = 200
_SHOWN_LINES = 25
_NO_OUTPUT = "does not provide attribute"


@dataclass(frozen=True, slots=True, kw_only=True)
class NixAnswer:
    """How a command of Nix ended.

    :param said: its errors, or what it printed last where it names none.
    :param warnings: what it warned of.
    """

    succeeded: bool
    said: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirenvVisit:
    """What direnv did with the flake's ``.envrc`` in a copy of the flake.

    :param roots: garbage collector roots that it left below the copy: link to store path.
    """

    succeeded: bool
    said: str
    roots: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlakeHost:
    """One host of the flake, as far as others call it.

    :param addresses: declared addresses of all its interfaces, without prefix length.
    """

    name: str
    host_name: str
    addresses: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """Everything that another host may write to reach it."""
        return frozenset({self.name, self.host_name, *self.addresses} - {""})


class Flake:
    """The flake of the host, as Nix sees it; asks each question once.

    Nothing is written to the user's files. Shells are entered in a copy.
    """

    def __init__(self, ref: FlakeRef, nix: Nix) -> None:
        self.ref = ref
        self._nix = nix
        self._shells: dict[tuple[str, str], DevShell] = {}
        self._visits: dict[tuple[str, str, bool], ShellVisit] = {}
        self._names: Mapping[str, tuple[str, ...]] | None = None
        self._metadata: Mapping[str, Json] | None = None
        self._hosts: tuple[FlakeHost, ...] | None = None

    @property
    def system(self) -> str:
        """System of this machine, as Nix names it, for example ``x86_64-linux``."""
        return f"{platform.machine()}-{platform.system().lower()}"

    @property
    def source(self) -> Path:
        """The directory of ``flake.nix`` in the store.

        :raises FlakeError: if the flake cannot be read.
        """
        return self._root / self._subdirectory

    def lock_answer(self) -> NixAnswer:
        """Ask Nix whether ``flake.lock`` says all that ``flake.nix`` needs."""
        return self._ask(flake_argv.lock_check_argv(self._nix.settings, self.ref))

    def check_answer(self) -> NixAnswer:
        """Run ``nix flake check --no-build``."""
        return self._ask(flake_argv.check_argv(self._nix.settings, self.ref))

    def hosts(self) -> tuple[FlakeHost, ...]:
        """Return all hosts of the flake with their names and declared addresses.

        :raises EvalError: if one of them does not evaluate.
        """
        if self._hosts is None:
            expression = flake_argv.hosts_expression()
            found = self._apply("nixosConfigurations", expression, subject="nixosConfigurations")
            self._hosts = tuple(
                FlakeHost(name=n, host_name=h["hostName"], addresses=tuple(h["addresses"]))
                for n, h in (found or {}).items()
            )
        return self._hosts

    def dev_shell_names(self) -> Mapping[str, tuple[str, ...]]:
        """Return the names of all development shells by system; empty where the flake has none.

        :raises EvalError: if the flake does not evaluate.
        """
        if self._names is None:
            found = self._output({})
            self._names = {system: tuple(names) for system, names in found.items()}
        return self._names

    def systems(self) -> tuple[str, ...]:
        """Return the systems for which the flake has packages, checks, programs or a formatter.

        :raises EvalError: if the flake does not evaluate.
        """
        found: set[str] = set()
        for output in ("packages", "checks", "apps", "formatter"):
            found |= set(self._attributes(output))
        return tuple(sorted(found))

    def dev_shell(self, system: str, name: str) -> DevShell:
        """Evaluate one development shell.

        :raises EvalError: if it does not evaluate.
        """
        key = (system, name)
        if key not in self._shells:
            document = self._output({"system": system, "shell": name})
            self._shells[key] = DevShell.parse(system, name, document)
        return self._shells[key]

    def enter(self, system: str, name: str, *, pure: bool = False) -> ShellVisit:
        """Enter a development shell with ``nix develop`` in a copy of the flake, once per kind of entry.

        :param pure: with ``--ignore-environment``.
        """
        key = (system, name, pure)
        if key not in self._visits:
            with scratch_copy(self._root) as scratch:
                argv = flake_argv.develop_argv(
                    self._nix.settings,
                    self.ref,
                    system=system,
                    shell=name,
                    command=VISITED,
                    kept=KEPT if pure else None,
                )
                cwd = scratch.project / self._subdirectory
                self._visits[key] = visit(argv, scratch, cwd=cwd, limit_s=_SHELL_LIMIT_S)
        return self._visits[key]

    @property
    def has_direnv(self) -> bool:
        """Whether direnv is installed on this machine."""
        return shutil.which("direnv") is not None

    def enter_with_direnv(self) -> DirenvVisit:
        """Let direnv load ``.envrc`` in a copy of the flake, and look for what it keeps from being collected."""
        runner, settings = self._nix.runner, self._nix.settings
        with scratch_copy(self._root) as scratch:
            directory = scratch.project / self._subdirectory
            env = {
                **visit_environment(scratch.home, "direnv"),
                "NIX_CONFIG": _configuration(settings.nix_options),
            }
            if settings.override_inputs:
                argv = flake_argv.lock_copy_argv(settings, str(directory))
                runner.run(argv, deadline=Deadline.after(_SHELL_LIMIT_S), env=env, cwd=directory)
            said = ""
            for words in (("allow", "."), ("exec", ".", "true")):
                done = runner.run(
                    ("direnv", *words),
                    deadline=Deadline.after(_SHELL_LIMIT_S),
                    env=env,
                    cwd=directory,
                )
                said += done.stderr_text
            roots = runner.run(flake_argv.roots_argv(), deadline=Deadline.after(_QUICK_S))
            return DirenvVisit(
                succeeded=done.exit_status == 0,
                said=said,
                roots=_roots_below(scratch.project, roots.stdout_text),
            )

    def container_template(self, host: str, *, gc_root: Path) -> Path | None:
        """Build the template from which Proxmox makes the host's container; ``None`` where the host has none.

        :param gc_root: link to make to what was built.
        :raises EvalError: if the host does not evaluate.
        :raises BuildError: if the template cannot be built.
        """
        expression = flake_argv.image_expression(host)
        derivation = self._apply("nixosConfigurations", expression, subject=host)
        return None if derivation is None else self._nix.build(str(derivation), gc_root=gc_root)

    def rebuild(self, derivation: str) -> Rebuild:
        """Build again what this machine built for `derivation`, as far as that is cheap, and compare.

        Text files, units and scripts are built again, and the system that holds them; packages are not.

        :param derivation: store path of a derivation that has been built.
        """
        listed = self._nix.runner.run(
            flake_argv.requisites_argv(derivation), deadline=Deadline.after(_QUICK_S)
        )
        tried = rebuildable(listed.stdout_text.split())
        version = self._nix.version()
        found: dict[str, None] = {}
        failures: list[str] = []
        for first in range(0, len(tried), _AT_ONCE):
            argv = flake_argv.rebuild_argv(
                self._nix.settings, tried[first : first + _AT_ONCE], version=version
            )
            answer = self._ask(argv, limit_s=self._nix.settings.build_limit_s)
            if not answer.succeeded:
                names = different(answer.said)
                found |= dict.fromkeys(names)
                failures += [] if names else [answer.said]
        return Rebuild(tried=tried, different=tuple(found), failures=tuple(failures))

    @property
    def _subdirectory(self) -> str:
        return subfolder(self._described)

    @property
    def _root(self) -> Path:
        return Path(str(self._described["path"]))

    @property
    def _described(self) -> Mapping[str, Json]:
        if self._metadata is None:
            self._metadata = self._nix.metadata(self.ref)
        return self._metadata

    def _attributes(self, output: str) -> Sequence[str]:
        return self._apply(output, "builtins.attrNames", subject=output) or ()

    def _output(self, request: Mapping[str, str]) -> Json:
        expression = flake_argv.dev_shells_expression(request)
        subject = ".".join(("devShells", *request.values()))
        return self._apply("devShells", expression, subject=subject) or {}

    def _apply(self, output: str, expression: str, *, subject: str) -> Json:
        """Apply a function to an output; ``None`` where the flake has no such output."""
        argv = flake_argv.output_argv(self._nix.settings, self.ref, output, expression)
        log = NixLog()
        done = self._run(argv, log, self._nix.settings.evaluation_limit_s)
        if done.exit_status == 0:
            return json.loads(done.stdout)
        if any(_NO_OUTPUT in error.text for error in log.errors):
            return None
        raise evaluation_failure(HostRef(self.ref, subject), log, done.exit_status)

    def _ask(self, argv: Sequence[str], *, limit_s: float | None = None) -> NixAnswer:
        log = NixLog()
        limit_s = limit_s or self._nix.settings.evaluation_limit_s
        try:
            done = self._run(argv, log, limit_s)
        except ProcessTimeout as err:
            return NixAnswer(succeeded=False, said=err.message, warnings=tuple(log.warnings))
        said = [error.text for error in log.errors] or list(log.plain)[-_SHOWN_LINES:]
        return NixAnswer(
            succeeded=done.exit_status == 0, said="\n".join(said), warnings=tuple(log.warnings)
        )

    def _run(self, argv: Sequence[str], log: NixLog, limit_s: float) -> Completed:
        return self._nix.runner.run(argv, deadline=Deadline.after(limit_s), on_stderr_line=log.feed)


def _configuration(options: Sequence[tuple[str, str]]) -> str:
    """Return settings for a Nix that others call, as the commands of this module have them."""
    own = [("extra-experimental-features", "nix-command flakes"), *options]
    return "\n".join(
        [os.environ.get("NIX_CONFIG", ""), *(f"{key} = {value}" for key, value in own)]
    )


def _roots_below(directory: Path, printed: str) -> Mapping[str, str]:
    real = os.path.realpath(directory)
    pairs = (line.partition(" -> ") for line in printed.splitlines())
    return {
        os.path.relpath(link, real): target
        for link, _, target in pairs
        if link.startswith(f"{real}/")
    }
