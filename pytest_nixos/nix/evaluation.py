"""The Nix command line: from a flake ref to a host's facts and its derivation. Only this module and its base run ``nix``.

Every call works with Nix 2.8 to 2.33 and Lix. The user's flake and lock file are never written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_nixos.errors import BuildError, EvalError, FlakeError, NixosError
from pytest_nixos.local.process import ProcessTimeout
from pytest_nixos.nix.argv import (
    NixSettings,
    eval_argv,
    metadata_argv,
)
from pytest_nixos.nix.cache import evaluation_key
from pytest_nixos.nix.expression import (
    Instrumentation,
    evaluation_expression,
    generation_expression,
    option_names,
)
from pytest_nixos.nix.failures import (
    EvalInterrupted,
    evaluation_failure,
    flake_failure,
    no_such_host,
    no_such_input,
    not_a_machine,
)
from pytest_nixos.nix.host_config import HostConfig
from pytest_nixos.nix.host_document import parse_host_config
from pytest_nixos.nix.isolate import Isolation
from pytest_nixos.nix.log import NixLog
from pytest_nixos.nix.metadata import content_identity, input_names, unknown_inputs
from pytest_nixos.nix.refs import FlakeRef, HostRef
from pytest_nixos.nix.store import NixStore, parsed_json

__all__ = [
    "Instrumentation",
    "Locked",
    "Nix",
    "NixSettings",
    "run_script",
]

Json = Any

_METADATA_S = 600.0
# Reading whether a host has a `config` loads nixpkgs' lib and no module.
_FETCH = "hosts: builtins.any (name: hosts.${name} ? config) (builtins.attrNames hosts)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What a flake is at one moment, for evaluations that follow each other.

    :param flake: the flake.
    :param identity: what its content, its inputs and the Nix that reads them are known by; ``None`` where its
        evaluation may change although nothing of that does.
    """

    flake: FlakeRef
    identity: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nix(NixStore):
    """Nix on this machine, for one set of settings and one instrumentation."""

    instrumentation: Instrumentation

    def metadata(self, flake: FlakeRef) -> Mapping[str, Json]:
        """Return ``nix flake metadata --json``: ``url``, ``path``, ``locked``, ``locks``.

        :raises FlakeError: if the flake cannot be found, fetched or locked, or lacks an input to override.
        """
        log = NixLog()
        argv = metadata_argv(self.settings, flake)
        try:
            answer = self.run(argv, log, _METADATA_S)
        except ProcessTimeout as err:
            raise FlakeError(
                f"{flake}: still being fetched after {_METADATA_S:g} s",
                remedy="check the network, or replace the input with --nixos-override-input",
            ) from err
        if answer.exit_status != 0:
            raise flake_failure(flake, log, answer.exit_status)
        document: Mapping[str, Json] = parsed_json(answer, str(flake))
        unknown = unknown_inputs(document, (name for name, _ in self.settings.override_inputs))
        if unknown:
            raise no_such_input(flake, unknown[0], input_names(document))
        return document

    def lock(self, flake: FlakeRef) -> Locked:
        """Tell what a flake is now; two Nix commands, 50 ms in all.

        :raises FlakeError: if the flake cannot be found, fetched or locked, or lacks an input to override.
        """
        metadata = self.metadata(flake)  # also the place where a bad flake ref is told
        content = content_identity(metadata)
        if self.settings.cache is None or not self.settings.pure or content is None:
            return Locked(flake=flake, identity=None)
        parts = {
            "flake": content,
            "overrides": self.settings.override_inputs,
            "options": self.settings.nix_options,
            "nix": self.version(),
        }
        return Locked(flake=flake, identity=evaluation_key(parts))

    def host_names(self, flake: FlakeRef, *, locked: Locked | None = None) -> tuple[str, ...]:
        """List ``nixosConfigurations`` in order of name.

        :param locked: what :meth:`lock` said a moment ago; asked for again unless given.
        :raises FlakeError: if the flake cannot be read or has none.
        :raises EvalError: if the flake itself does not evaluate.
        """
        locked = locked or self.lock(flake)
        key = _key(locked, {"kind": "host names"})
        cached = self._cached(key)
        if cached is None:
            names = self._eval(HostRef(flake, ""), "builtins.attrNames")
            cached = {"names": names}
            self._keep(key, cached, locked)
        return tuple(cached["names"])

    def fetch(self, flake: FlakeRef) -> None:
        """Have Nix fetch what evaluating a host reads, so that evaluations at once do not each fetch it.

        What is wrong with the flake, the evaluations tell.
        """
        with contextlib.suppress(NixosError):
            self._eval(HostRef(flake, ""), _FETCH)

    def known(
        self,
        host: HostRef,
        locked: Locked,
        *,
        backend: str = "auto",
        option_paths: Sequence[str] = (),
    ) -> HostConfig | None:
        """Return what :meth:`evaluate` would, if it is known without an evaluation."""
        document = self._instantiated(self._host_key(host, locked, backend, option_paths))
        if document is None:
            return None
        return parse_host_config(host, document, option_paths=_each_once(option_paths))

    def evaluate(
        self,
        host: HostRef,
        *,
        backend: str = "auto",
        option_paths: Sequence[str] = (),
        locked: Locked | None = None,
    ) -> HostConfig:
        """Evaluate one host to its facts and instantiate its machine.

        :param backend: ``auto`` (a container if the host declares ``boot.isContainer``), ``vm``, ``container``.
        :param option_paths: further options to read, as written in a module.
        :param locked: what :meth:`lock` said a moment ago; asked for again unless given.
        :raises FlakeError: if the flake cannot be read or has no such host.
        :raises EvalError: if the host does not evaluate.
        :raises SettingsError: if an option path is malformed.
        """
        paths = _each_once(option_paths)
        locked = locked or self.lock(host.flake)
        key = self._host_key(host, locked, backend, paths)
        document = self._instantiated(key)
        if document is None:
            names = {path: option_names(path) for path in paths}
            document = _checked(host, self._evaluate(host, backend, names))
            self._keep(key, document, locked)
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
        locked = self.lock(host.flake)
        key = _key(locked, {"kind": "generation", "expression": expression})
        document = self._instantiated(key)
        if document is None:
            document = _checked(host, self._eval(host, expression))
            self._keep(key, document, locked)
        return str(document["derivation"])

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
            answer = self.run(eval_argv(self.settings, host.flake, expression), log, limit_s)
        except ProcessTimeout as err:
            raise EvalInterrupted(
                f"{host}: still evaluating after {limit_s:g} s",
                remedy="raise the limit; an evaluation that never ends often imports from a derivation",
                detail="\n".join(log.plain),
            ) from err
        if answer.exit_status != 0:
            raise evaluation_failure(host, log, answer.exit_status)
        return parsed_json(answer, str(host))

    def _host_key(
        self, host: HostRef, locked: Locked, backend: str, option_paths: Sequence[str]
    ) -> str | None:
        expression = evaluation_expression(
            host.attr,
            backend=backend,
            instrumentation=self.instrumentation,
            options=[option_names(path) for path in _each_once(option_paths)],
        )
        return _key(locked, {"kind": "host", "expression": expression})

    def _cached(self, key: str | None) -> Mapping[str, Json] | None:
        return self.settings.cache.get(key) if self.settings.cache and key else None

    def _instantiated(self, key: str | None) -> Mapping[str, Json] | None:
        """Return the document under `key` if its derivation was not collected since."""
        document = self._cached(key)
        return document if document and Path(document["derivation"]).exists() else None

    def _keep(self, key: str | None, document: Mapping[str, Json], locked: Locked) -> None:
        # Somebody may have edited the flake in between: what was read is then not what `key` says.
        if self.settings.cache and key and self.lock(locked.flake) == locked:
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


def _each_once(option_paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(option_paths))


def _key(locked: Locked, parts: Mapping[str, object]) -> str | None:
    """Return the cache's key, ``None`` where the outcome is not fixed by what is known."""
    return locked.identity and evaluation_key({"locked": locked.identity, **parts})


def _checked(host: HostRef, document: Json) -> Mapping[str, Json]:
    problem = document.get("problem")
    if problem == "no-host":
        raise no_such_host(host, document["known"])
    if problem:
        raise not_a_machine(host, problem)
    checked: Mapping[str, Json] = document
    return checked
