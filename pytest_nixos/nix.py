"""The Nix command line: from a flake ref to a built store path. The only module that runs ``nix``.

Every call works with Nix 2.8 to 2.33 and Lix. The user's flake and lock file are never written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_nixos.errors import BuildError, EvalError, FlakeError, ToolMissingError
from pytest_nixos.evaluation_cache import evaluation_key
from pytest_nixos.evaluation_isolation import Isolation
from pytest_nixos.flake import FlakeRef, HostRef
from pytest_nixos.flake_metadata import content_identity, input_names, unknown_inputs
from pytest_nixos.host_config import HostConfig
from pytest_nixos.host_document import parse_host_config
from pytest_nixos.nix_command import (
    NixSettings,
    build_argv,
    closure_argv,
    dump_database_argv,
    eval_argv,
    export_argv,
    log_argv,
    metadata_argv,
    version_argv,
)
from pytest_nixos.nix_errors import (
    EvalInterrupted,
    build_failure,
    evaluation_failure,
    flake_failure,
    no_such_host,
    no_such_input,
    not_a_machine,
)
from pytest_nixos.nix_expression import (
    Instrumentation,
    evaluation_expression,
    generation_expression,
    option_names,
)
from pytest_nixos.nix_log import NixLog, ProgressSink
from pytest_nixos.process import Completed, ProcessTimeout, Runner
from pytest_nixos.timing import Deadline

__all__ = [
    "Instrumentation",
    "Nix",
    "NixSettings",
    "run_script",
]

Json = Any

_INSTALL = (
    "install Nix: `apt install nix-bin` on Debian and Ubuntu, the installer on nixos.org elsewhere"
)
_QUICK_S = 60.0
_METADATA_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Nix:
    """Nix on this machine, for one set of settings and one instrumentation."""

    runner: Runner
    instrumentation: Instrumentation
    settings: NixSettings = field(default_factory=NixSettings)

    def version(self) -> str:
        """Return what ``nix --version`` says, for example ``nix (Nix) 2.26.3``.

        :raises ToolMissingError: if there is no Nix.
        """
        answer = self._run(version_argv(self.settings), NixLog(), _QUICK_S)
        return answer.stdout_text.strip()

    def metadata(self, flake: FlakeRef) -> Mapping[str, Json]:
        """Return ``nix flake metadata --json``: ``url``, ``path``, ``locked``, ``locks``.

        :raises FlakeError: if the flake cannot be found, fetched or locked, or lacks an input to override.
        """
        log = NixLog()
        argv = metadata_argv(self.settings, flake)
        try:
            answer = self._run(argv, log, _METADATA_S)
        except ProcessTimeout as err:
            raise FlakeError(
                f"{flake}: still being fetched after {_METADATA_S:g} s",
                remedy="check the network, or replace the input with --nixos-override-input",
            ) from err
        if answer.exit_status != 0:
            raise flake_failure(flake, log, answer.exit_status)
        document: Mapping[str, Json] = _parsed(answer, str(flake))
        unknown = unknown_inputs(document, (name for name, _ in self.settings.override_inputs))
        if unknown:
            raise no_such_input(flake, unknown[0], input_names(document))
        return document

    def host_names(self, flake: FlakeRef) -> tuple[str, ...]:
        """List ``nixosConfigurations`` in order of name.

        :raises FlakeError: if the flake cannot be read or has none.
        :raises EvalError: if the flake itself does not evaluate.
        """
        key = self._key(flake, {"kind": "host names"})
        cached = self._cached(key)
        if cached is None:
            names = self._eval(HostRef(flake, ""), "builtins.attrNames")
            cached = {"names": names}
            self._keep(key, cached)
        return tuple(cached["names"])

    def evaluate(
        self, host: HostRef, *, backend: str = "auto", option_paths: Sequence[str] = ()
    ) -> HostConfig:
        """Evaluate one host to its facts and instantiate its machine.

        :param backend: ``auto`` (a container if the host declares ``boot.isContainer``), ``vm``, ``container``.
        :param option_paths: further options to read, as written in a module.
        :raises FlakeError: if the flake cannot be read or has no such host.
        :raises EvalError: if the host does not evaluate.
        :raises SettingsError: if an option path is malformed.
        """
        paths = tuple(dict.fromkeys(option_paths))
        names = {path: option_names(path) for path in paths}
        key = self._key(
            host.flake,
            {
                "kind": "host",
                "expression": evaluation_expression(
                    host.attr,
                    backend=backend,
                    instrumentation=self.instrumentation,
                    options=list(names.values()),
                ),
            },
        )
        document = self._cached(key)
        if document is None or not Path(document["derivation"]).exists():
            document = _checked(host, self._evaluate(host, backend, names))
            self._keep(key, document)
        return parse_host_config(host, document, option_paths=paths)

    def instantiate_generation(self, host: HostRef, *, backend: str, delta: str) -> str:
        """Instantiate a toplevel that the host's machine can switch to; return its derivation.

        :param backend: the machine's, ``vm`` or ``container``.
        :param delta: text of a Nix module, ``{ }`` for none.
        :raises EvalError: if the host with the delta does not evaluate.
        """
        expression = generation_expression(
            host.attr, backend=backend, instrumentation=self.instrumentation, delta=delta
        )
        key = self._key(host.flake, {"kind": "generation", "expression": expression})
        document = self._cached(key)
        if document is None or not Path(document["derivation"]).exists():
            document = _checked(host, self._eval(host, expression))
            self._keep(key, document)
        return str(document["derivation"])

    def build(
        self, derivation: str, *, gc_root: Path, on_progress: ProgressSink | None = None
    ) -> Path:
        """Build a derivation and keep it from the garbage collector.

        :param gc_root: symlink to make, in a directory that is made if it is missing.
        :param on_progress: called as Nix gets on.
        :return: store path of its ``out`` output.
        :raises BuildError: with the end of the log of the derivation that failed.
        """
        log = NixLog(on_progress)
        gc_root.parent.mkdir(parents=True, exist_ok=True)
        argv = build_argv(self.settings, derivation, gc_root=gc_root, version=self.version())
        try:
            answer = self._run(argv, log, self.settings.build_limit_s)
        except ProcessTimeout as err:
            raise BuildError(
                f"{derivation}: still building after {self.settings.build_limit_s:g} s",
                remedy="raise the limit, or build on a faster machine and copy the result",
                derivation=derivation,
            ) from err
        if answer.exit_status != 0:
            raise build_failure(
                derivation, log, answer.exit_status, read_log=self._log_of_derivation
            )
        outputs = _parsed(answer, derivation)[0]["outputs"]
        return Path(outputs.get("out") or next(iter(outputs.values())))

    def closure(self, path: Path) -> tuple[Path, ...]:
        """Return the store paths that `path` needs at run time, itself included.

        :raises BuildError: if it is no valid store path.
        """
        log = NixLog()
        answer = self._run(closure_argv(self.settings, path), log, _QUICK_S)
        if answer.exit_status != 0:
            raise build_failure(str(path), log, answer.exit_status, read_log=lambda _: ())
        return tuple(Path(line) for line in answer.stdout_text.split())

    def dump_database(self, paths: Sequence[Path]) -> bytes:
        """Return what the database knows of `paths`, as ``nix-store --load-db`` reads it.

        :raises BuildError: if one is no valid store path.
        """
        return self._store_output(dump_database_argv(paths), str(paths[0])) if paths else b""

    def export(self, paths: Sequence[Path]) -> bytes:
        """Return `paths` as ``nix-store --import`` reads them.

        :raises BuildError: if one is no valid store path.
        """
        return self._store_output(export_argv(paths), str(paths[0])) if paths else b""

    def _store_output(self, argv: Sequence[str], subject: str) -> bytes:
        log = NixLog()
        answer = self._run(argv, log, self.settings.build_limit_s)
        if answer.exit_status != 0:
            raise build_failure(subject, log, answer.exit_status, read_log=lambda _: ())
        return answer.stdout

    def _evaluate(
        self, host: HostRef, backend: str, options: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Json]:
        def evaluate(
            names: Sequence[Sequence[str]], skipped_facts: Sequence[str]
        ) -> Mapping[str, Json]:
            expression = evaluation_expression(
                host.attr,
                backend=backend,
                instrumentation=self.instrumentation,
                options=names,
                skipped_facts=skipped_facts,
            )
            document: Mapping[str, Json] = self._eval(host, expression)
            return document

        try:
            return evaluate(list(options.values()), ())
        except EvalInterrupted:
            raise
        except EvalError as err:
            return Isolation(evaluate, options).document(err)

    def _eval(self, host: HostRef, expression: str) -> Json:
        log = NixLog()
        limit_s = self.settings.evaluation_limit_s
        try:
            answer = self._run(eval_argv(self.settings, host.flake, expression), log, limit_s)
        except ProcessTimeout as err:
            raise EvalInterrupted(
                f"{host}: still evaluating after {limit_s:g} s",
                remedy="raise the limit; an evaluation that never ends often imports from a derivation",
                detail="\n".join(log.plain),
            ) from err
        if answer.exit_status != 0:
            raise evaluation_failure(host, log, answer.exit_status)
        return _parsed(answer, str(host))

    def _run(self, argv: Sequence[str], log: NixLog, limit_s: float) -> Completed:
        try:
            return self.runner.run(argv, deadline=Deadline.after(limit_s), on_stderr_line=log.feed)
        except ToolMissingError as err:
            raise ToolMissingError(
                f"{argv[0]}: Nix is not installed or not on PATH", remedy=_INSTALL
            ) from err

    def _log_of_derivation(self, derivation: str) -> Sequence[str]:
        answer = self._run(log_argv(self.settings, derivation), NixLog(), _QUICK_S)
        return answer.stdout_text.splitlines()[-40:] if answer.exit_status == 0 else ()

    def _key(self, flake: FlakeRef, parts: Mapping[str, object]) -> str | None:
        """Return the cache's key, ``None`` where the outcome is not fixed by what is known."""
        metadata = self.metadata(flake)  # also the place where a bad flake ref is told
        if self.settings.cache is None or not self.settings.pure:
            return None
        identity = content_identity(metadata)
        if identity is None:
            return None
        return evaluation_key(
            {
                "flake": identity,
                "overrides": self.settings.override_inputs,
                "options": self.settings.nix_options,
                "nix": self.version(),
                **parts,
            }
        )

    def _cached(self, key: str | None) -> Mapping[str, Json] | None:
        return self.settings.cache.get(key) if self.settings.cache and key else None

    def _keep(self, key: str | None, document: Mapping[str, Json]) -> None:
        if self.settings.cache and key:
            self.settings.cache.put(key, document)


def run_script(package: Path, program: str) -> Path:
    """Return the run script of a built VM.

    :param package: what was built.
    :param program: where it should be, see :attr:`HostConfig.program`.
    :raises BuildError: if the package holds no run script.
    """
    if (package / program).is_file():
        return package / program
    others = sorted(package.glob("bin/run-*-vm"))
    if not others:
        raise BuildError(
            f"{package}: expected {program}, found no bin/run-*-vm",
            remedy="see what the host sets system.build.vm to",
        )
    return others[0]


def _parsed(answer: Completed, subject: str) -> Json:
    try:
        return json.loads(answer.stdout)
    except ValueError as err:
        raise EvalError(
            f"{subject}: Nix answered something other than JSON: {answer.stdout_text[:200]!r}",
            remedy="run the same command by hand; a wrapper named nix may print to standard output",
            detail=answer.stderr_text,
        ) from err


def _checked(host: HostRef, document: Json) -> Mapping[str, Json]:
    problem = document.get("problem")
    if problem == "no-host":
        raise no_such_host(host, document["known"])
    if problem:
        raise not_a_machine(host, problem)
    checked: Mapping[str, Json] = document
    return checked
