"""The Nix command line: from a flake ref to a built store path. The only module that runs ``nix``.

Every call works with Nix 2.8 to 2.33 and Lix. The user's flake and lock file are never written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_nixos.errors import BuildError, EvalError, FlakeError, ToolMissingError
from pytest_nixos.evaluation_cache import EvaluationCache, content_identity, evaluation_key
from pytest_nixos.flake import FlakeRef, HostRef
from pytest_nixos.host_config import HostConfig
from pytest_nixos.host_document import parse_host_config
from pytest_nixos.nix_errors import (
    build_failure,
    evaluation_failure,
    flake_failure,
    no_such_host,
    not_a_machine,
)
from pytest_nixos.nix_expression import (
    FACTS,
    Instrumentation,
    evaluation_expression,
    expression_sources,
    generation_expression,
    option_names,
)
from pytest_nixos.nix_log import NixLog, ProgressSink
from pytest_nixos.process import Completed, ProcessTimeout, Runner
from pytest_nixos.timing import Deadline

__all__ = [
    "Nix",
    "NixSettings",
    "build_argv",
    "closure_argv",
    "eval_argv",
    "metadata_argv",
    "run_script",
]

Json = Any

_FLAKES = ("--extra-experimental-features", "nix-command flakes")
_LOG = ("--log-format", "internal-json")
_INSTALL = (
    "install Nix: `apt install nix-bin` on Debian and Ubuntu, the installer on nixos.org elsewhere"
)
_QUICK_S = 60.0
_METADATA_S = 600.0
_MAX_ISOLATING_EVALUATIONS = 40
# From 2.15 on `/nix/store/x.drv` names the derivation itself and `^*` its outputs; 2.8 knows no `^`.
_OUTPUT_SYNTAX_SINCE = (2, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class NixSettings:
    """What the user can set about Nix.

    :param program: name or path of ``nix``.
    :param override_inputs: pairs of input name and flake ref, as ``--override-input`` takes them.
    :param nix_options: pairs of name and value for ``--option``.
    :param impure: evaluate with ``--impure``; such evaluations are not cached.
    :param evaluation_limit_s: for one evaluation, fetching of inputs included.
    :param build_limit_s: for one build.
    :param cache: where evaluations are kept, ``None`` for nowhere.
    """

    program: str = "nix"
    override_inputs: tuple[tuple[str, str], ...] = ()
    nix_options: tuple[tuple[str, str], ...] = ()
    impure: bool = False
    evaluation_limit_s: float = 1800.0
    build_limit_s: float = 6 * 3600.0
    cache: EvaluationCache | None = None


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
        answer = self._run((self.settings.program, "--version"), NixLog(), _QUICK_S)
        return answer.stdout_text.strip()

    def metadata(self, flake: FlakeRef) -> Mapping[str, Json]:
        """Return ``nix flake metadata --json``: ``url``, ``path``, ``locked``, ``locks``.

        :raises FlakeError: if the flake cannot be found, fetched or locked.
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
        unknown = [text for text in log.warnings if "override for a non-existent input" in text]
        for text in unknown:
            log.plain.append(text)
        if answer.exit_status != 0 or unknown:
            raise flake_failure(flake, log, answer.exit_status)
        document: Mapping[str, Json] = _parsed(answer, str(flake))
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
            document = self._evaluate(host, backend, names)
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

    def _evaluate(
        self, host: HostRef, backend: str, options: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Json]:
        try:
            return self._document(host, backend, list(options.values()), ())
        except EvalError as whole:
            return _Isolation(self, host, backend, options).document(whole)

    def _document(
        self,
        host: HostRef,
        backend: str,
        options: Sequence[Sequence[str]],
        skipped_facts: Sequence[str],
    ) -> Mapping[str, Json]:
        expression = evaluation_expression(
            host.attr,
            backend=backend,
            instrumentation=self.instrumentation,
            options=options,
            skipped_facts=skipped_facts,
        )
        return _checked(host, self._eval(host, expression))

    def _eval(self, host: HostRef, expression: str) -> Json:
        log = NixLog()
        limit_s = self.settings.evaluation_limit_s
        try:
            answer = self._run(eval_argv(self.settings, host.flake, expression), log, limit_s)
        except ProcessTimeout as err:
            raise EvalError(
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
        argv = (self.settings.program, *_FLAKES, "log", derivation)
        answer = self._run(argv, NixLog(), _QUICK_S)
        return answer.stdout_text.splitlines()[-40:] if answer.exit_status == 0 else ()

    def _key(self, flake: FlakeRef, parts: Mapping[str, object]) -> str | None:
        """Return the cache's key, ``None`` where the outcome is not fixed by what is known."""
        metadata = self.metadata(flake)  # also the place where a bad flake ref is told
        if self.settings.cache is None or self.settings.impure:
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
                "sources": expression_sources(),
                **parts,
            }
        )

    def _cached(self, key: str | None) -> Mapping[str, Json] | None:
        return self.settings.cache.get(key) if self.settings.cache and key else None

    def _keep(self, key: str | None, document: Mapping[str, Json]) -> None:
        if self.settings.cache and key:
            self.settings.cache.put(key, document)


class _Isolation:
    """Finds the facts and options that end the evaluation of a host whose machine does evaluate.

    ``tryEval`` cannot catch a type error or a missing attribute; those are found by halving.
    """

    def __init__(
        self, nix: Nix, host: HostRef, backend: str, options: Mapping[str, Sequence[str]]
    ) -> None:
        self._nix = nix
        self._host = host
        self._backend = backend
        self._options = options
        self._left = _MAX_ISOLATING_EVALUATIONS

    def document(self, whole: EvalError) -> Mapping[str, Json]:
        """Return the document without what breaks it.

        :raises EvalError: `whole`, if the machine itself does not evaluate.
        """
        everything = (*FACTS, *self._options)
        if not self._works(()):
            raise whole
        broken = set(self._broken(everything))
        paths = [path for path in self._options if path not in broken]
        document = self._evaluate([path for path in everything if path not in broken])
        found = dict(zip(paths, document["options"], strict=True))
        inside = dict(zip(paths, document["machineOptions"], strict=True))
        unreadable = {"state": "unreadable"}
        return {
            **document,
            "options": [found.get(path, unreadable) for path in self._options],
            "machineOptions": [inside.get(path, unreadable) for path in self._options],
        }

    def _broken(self, items: Sequence[str]) -> list[str]:
        if self._works(items):
            return []
        if len(items) == 1 or self._left <= 0:
            return list(items)
        middle = len(items) // 2
        return [*self._broken(items[:middle]), *self._broken(items[middle:])]

    def _works(self, items: Sequence[str]) -> bool:
        self._left -= 1
        try:
            self._evaluate(items)
        except EvalError:
            return False
        return True

    def _evaluate(self, items: Sequence[str]) -> Mapping[str, Json]:
        options = [names for path, names in self._options.items() if path in items]
        skipped = [fact for fact in FACTS if fact not in items]
        return self._nix._document(self._host, self._backend, options, skipped)


def metadata_argv(settings: NixSettings, flake: FlakeRef) -> tuple[str, ...]:
    """Return the command that locks a flake in memory and tells its content."""
    return (
        *_nix(settings, "flake", "metadata"),
        *_flake_options(settings),
        "--json",
        str(flake),
    )


def eval_argv(settings: NixSettings, flake: FlakeRef, expression: str) -> tuple[str, ...]:
    """Return the command that applies `expression` to a flake's ``nixosConfigurations``."""
    return (
        *_nix(settings, "eval"),
        *_flake_options(settings),
        *(("--impure",) if settings.impure else ()),
        *("--option", "eval-cache", "false"),  # it would hide an error's text on the second run
        "--show-trace",
        "--json",
        f"{flake}#nixosConfigurations",
        *("--apply", expression),
    )


def build_argv(
    settings: NixSettings, derivation: str, *, gc_root: Path, version: str
) -> tuple[str, ...]:
    """Return the command that builds all outputs of a derivation.

    :param version: what ``nix --version`` says.
    """
    outputs = "^*" if _release(version) >= _OUTPUT_SYNTAX_SINCE else ""
    return (
        *_nix(settings, "build"),
        "--json",
        *("--out-link", str(gc_root)),
        f"{derivation}{outputs}",
    )


def closure_argv(settings: NixSettings, path: Path) -> tuple[str, ...]:
    """Return the command that lists the closure of a store path."""
    return (*_nix(settings, "path-info"), "--recursive", str(path))


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


def _nix(settings: NixSettings, *command: str) -> tuple[str, ...]:
    options = [word for pair in settings.nix_options for word in ("--option", *pair)]
    return (settings.program, *_FLAKES, *command, *_LOG, *options)


def _flake_options(settings: NixSettings) -> tuple[str, ...]:
    overrides = [w for pair in settings.override_inputs for w in ("--override-input", *pair)]
    return ("--no-write-lock-file", *overrides)


def _release(version: str) -> tuple[int, int]:
    """Read major and minor out of ``nix (Nix) 2.8.0``, ``nix (Lix, like Nix) 2.91.1``, ``... 2.33pre2026``."""
    found = re.findall(r"(\d+)\.(\d+)", version)
    return (int(found[-1][0]), int(found[-1][1])) if found else _OUTPUT_SYNTAX_SINCE


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
