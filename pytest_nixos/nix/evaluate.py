"""What Nix can be asked about a flake, one function a question; each runs one command.

All of them work with Nix 2.8 to 2.35 and Lix, and none writes the user's flake or its lock file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.errors import EvalError, FlakeError
from pytest_nixos.local.process import Completed, ProcessTimeout
from pytest_nixos.nix.building.store import Nix, parsed_json
from pytest_nixos.nix.command.argv import eval_argv, metadata_argv, prefetch_argv
from pytest_nixos.nix.command.log import NixLog
from pytest_nixos.nix.command.metadata import input_names, source_path, unknown_inputs
from pytest_nixos.nix.command.refs import FileRef, FlakeRef, HomesRef, HostRef, NixosTestRef
from pytest_nixos.nix.expression import (
    Instrumentation,
    evaluation_expression,
    file_hosts_expression,
    home_hosts_expression,
    test_nodes_expression,
)
from pytest_nixos.nix.failure.absent import no_such_host, no_such_input, no_such_test
from pytest_nixos.nix.failure.evaluation import (
    EvalInterrupted,
    ImageRefused,
    NoHosts,
    evaluation_failure,
    flake_failure,
    not_a_machine,
)
from pytest_nixos.nix.failure.isolate import Isolation
from pytest_nixos.nix.failure.owners import Circumstances

__all__ = [
    "CONFIGURATIONS",
    "Asked",
    "Measured",
    "NixAnswer",
    "apply_to_hosts",
    "apply_to_output",
    "ask",
    "checked",
    "describe",
    "host_document",
    "source_tree",
]

Json = Any

CONFIGURATIONS = "nixosConfigurations"
_HOMES = "homeConfigurations"
Measured = Callable[[int], None]

_METADATA_S = 600.0
_SHOWN_LINES = 25
_NO_OUTPUT = "does not provide attribute"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked about a host's options.

    :param options: option path to attribute names: these are read.
    :param where: option paths whose definitions are told.
    """

    options: Mapping[str, Sequence[str]]
    where: Sequence[str] = ()


class NixAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How a command of Nix ended.

    :param said: its errors, or what it printed last where it names none.
    :param warnings: what it warned of.
    """

    succeeded: bool
    said: str
    warnings: tuple[str, ...]


def describe(nix: Nix, flake: FlakeRef) -> Mapping[str, Json]:
    """Return ``nix flake metadata --json``: ``url``, ``path``, ``locked``, ``locks``.

    :raises FlakeError: if the flake cannot be found, fetched or locked, or lacks an input to
        override.
    """
    log = NixLog()
    try:
        answer = nix.run(metadata_argv(nix.settings, flake), log, _METADATA_S)
    except ProcessTimeout as err:
        raise _not_fetched(flake) from err
    if answer.exit_status != 0:
        raise flake_failure(flake, log, answer.exit_status, _around(nix, None))
    document: Mapping[str, Json] = parsed_json(answer, str(flake))
    unknown = unknown_inputs(document, (name for name, _ in nix.settings.override_inputs))
    if unknown:
        raise no_such_input(flake, unknown[0], input_names(document))
    return document


def source_tree(nix: Nix, flake: FlakeRef, metadata: Mapping[str, Json]) -> Path:
    """Return the source tree of a flake in the store, and put it there if it is not.

    Up to Nix 2.34 ``nix flake metadata`` has copied it already. Later ones name a path that need
    not exist, and Determinate Nix names none, since they evaluate without a copy.

    :raises FlakeError: if it cannot be fetched.
    """
    locked = metadata.get("locked") or {}
    for known in (metadata.get("path"), source_path(locked.get("narHash"))):
        if known is not None and Path(known).is_dir():
            return Path(known)
    log = NixLog()
    argv = prefetch_argv(nix.settings, str(metadata.get("url") or flake))
    try:
        answer = nix.run(argv, log, _METADATA_S)
    except ProcessTimeout as err:
        raise _not_fetched(flake) from err
    if answer.exit_status != 0:
        raise flake_failure(flake, log, answer.exit_status, _around(nix, metadata))
    return Path(str(parsed_json(answer, str(flake))["storePath"]))


def apply_to_hosts(
    nix: Nix,
    host: HostRef,
    expression: str,
    *,
    metadata: Mapping[str, Json],
    measured: Measured = lambda _: None,
) -> Json:
    """Apply a function to ``nixosConfigurations``.

    :param metadata: of the flake, by which a failure is told.

    :param measured: told how much memory Nix took, in MiB, where that is known.

    :param host: whom it is about, for the error; with an empty name all of them.
    :raises FlakeError: if the flake has no hosts or cannot be read.
    :raises EvalError: if it does not evaluate.
    """
    log = NixLog()
    answer = _evaluated(nix, host, CONFIGURATIONS, expression, log)
    if answer.peak_bytes is not None:
        measured(answer.peak_bytes >> 20)
    lacks_it = answer.exit_status != 0 and any(_NO_OUTPUT in error.text for error in log.errors)
    if lacks_it and isinstance(host.flake, NixosTestRef):
        raise no_such_test(host.flake)
    if lacks_it and isinstance(host.flake, HomesRef):
        raise NoHosts(
            f"{host.flake}: this flake has no {_HOMES}",
            remedy=f"name a flake with homes: {_HOMES}.NAME ="
            " home-manager.lib.homeManagerConfiguration { ... }",
        )
    if answer.exit_status != 0:
        raise evaluation_failure(host, log, answer.exit_status, _around(nix, metadata))
    return parsed_json(answer, str(host))


def apply_to_output(
    nix: Nix,
    flake: FlakeRef,
    output: str,
    expression: str,
    *,
    metadata: Mapping[str, Json],
    about: str = "",
) -> Json:
    """Apply a function to one top-level output of a flake; ``None`` where the flake has no such
    output.

    :param metadata: of the flake, by which a failure is told.
    :param about: the part of the output that is meant, for the error.
    :raises FlakeError: if the flake cannot be read.
    :raises EvalError: if it does not evaluate.
    """
    log, subject = NixLog(), HostRef(flake, about or output)
    answer = _evaluated(nix, subject, output, expression, log)
    if answer.exit_status == 0:
        return parsed_json(answer, str(subject))
    if any(_NO_OUTPUT in error.text for error in log.errors):
        return None
    raise evaluation_failure(subject, log, answer.exit_status, _around(nix, metadata))


def _evaluated(nix: Nix, subject: HostRef, output: str, expression: str, log: NixLog) -> Completed:
    limit_s = nix.settings.evaluation_limit_s
    if isinstance(subject.flake, FileRef):
        file, lone = subject.flake.url, subject.flake.lone_name
        name = "" if subject.attr == output else subject.attr
        expression = file_hosts_expression(file, lone=lone, name=name, expression=expression)
    if isinstance(subject.flake, NixosTestRef) and output == CONFIGURATIONS:
        output = subject.flake.attribute
        expression = test_nodes_expression(expression)
    if isinstance(subject.flake, HomesRef) and output == CONFIGURATIONS:
        output = _HOMES
        expression = home_hosts_expression(expression)
    try:
        return nix.run(eval_argv(nix.settings, subject.flake, output, expression), log, limit_s)
    except ProcessTimeout as err:
        raise EvalInterrupted(
            f"{subject}: still evaluating after {limit_s:g} s",
            remedy="raise the limit (--nixos-evaluation-timeout); an evaluation that never ends often imports from a derivation",
            detail="\n".join(log.plain),
        ) from err


def what_a_file_holds(nix: Nix, file: FileRef) -> str:
    """Return ``set`` of hosts, one ``host`` or a ``module``; ``""`` where the file does not say."""
    expression = file_hosts_expression(
        file.url, lone=file.lone_name, name="", expression="kind: kind", as_kind=True
    )
    argv = eval_argv(nix.settings, file, CONFIGURATIONS, expression)
    try:
        answer = nix.run(argv, NixLog(), nix.settings.evaluation_limit_s)
    except ProcessTimeout:
        return ""
    return str(parsed_json(answer, str(file))) if answer.exit_status == 0 else ""


def host_document(
    nix: Nix,
    host: HostRef,
    *,
    metadata: Mapping[str, Json],
    backend: str,
    instrumentation: Instrumentation,
    refuse_image: bool,
    asked: Asked,
    measured: Measured = lambda _: None,
) -> Mapping[str, Json]:
    """Return what ``nix/expressions/host-config.nix`` says of one host; what alone breaks it is
    left out and marked.

    :param metadata: of the flake, by which a failure is told.
    :param refuse_image: evaluate no further where the host is no machine that stays.
    :param asked: its `where` is left out of a host that does not evaluate as a whole, since it says
        nothing of what breaks it.
    :raises FlakeError: if the flake has no such host.
    :raises EvalError: if the host does not evaluate, or cannot be made into a machine.
    """

    def evaluate(
        names: Sequence[Sequence[str]],
        skipped_facts: Sequence[str],
        where: Sequence[str] = (),
    ) -> Mapping[str, Json]:
        expression = evaluation_expression(
            host.attr,
            backend=backend,
            instrumentation=instrumentation,
            options=names,
            where=where,
            skipped_facts=skipped_facts,
            refuse_image=refuse_image,
        )
        document: Mapping[str, Json] = apply_to_hosts(
            nix, host, expression, metadata=metadata, measured=measured
        )
        return document

    try:
        document = evaluate(list(asked.options.values()), (), asked.where)
    except EvalInterrupted:
        raise
    except EvalError as err:
        document = Isolation(evaluate, asked.options).document(err)
    except NoHosts:
        homes = _homes_instead(nix, host, metadata)
        if homes:
            raise no_such_host(host, (), homes) from None
        raise
    if document.get("problem") == "no-host":
        raise no_such_host(host, document["known"], _homes_instead(nix, host, metadata))
    return checked(host, document)


def _homes_instead(nix: Nix, host: HostRef, metadata: Mapping[str, Json]) -> Sequence[str]:
    """Return the names of a flake's homes, for whoever named no host of it; none where they do not
    evaluate, since that is not what is wrong.
    """
    if type(host.flake) is FlakeRef:
        with contextlib.suppress(EvalError):
            names = apply_to_output(
                nix, host.flake, _HOMES, "builtins.attrNames", metadata=metadata
            )
            return names or ()
    return ()


def checked(host: HostRef, document: Json) -> Mapping[str, Json]:
    """Return a document of a host, unless it says why there is none.

    :raises FlakeError: if the flake has no such host.
    :raises EvalError: if the host cannot be made into a machine.
    """
    problem = document.get("problem")
    if problem == "no-host":
        raise no_such_host(host, document["known"])
    if problem == "image":
        raise ImageRefused(host, str(document["kind"]))
    if problem:
        raise not_a_machine(host, problem)
    found: Mapping[str, Json] = document
    return found


def _around(nix: Nix, metadata: Mapping[str, Json] | None) -> Circumstances:
    return Circumstances(settings=nix.settings, metadata=metadata, version=nix.version)


def _not_fetched(flake: FlakeRef) -> FlakeError:
    return FlakeError(
        f"{flake}: still being fetched after {_METADATA_S:g} s",
        remedy="check the network, or replace the input with --nixos-override-input",
    )


def ask(nix: Nix, argv: Sequence[str], *, limit_s: float | None = None) -> NixAnswer:
    """Run a command of which every end is an answer.

    :param limit_s: seconds; that of an evaluation unless given.
    """
    log = NixLog()
    try:
        done = nix.run(argv, log, limit_s or nix.settings.evaluation_limit_s)
    except ProcessTimeout as err:
        return NixAnswer(succeeded=False, said=err.message, warnings=tuple(log.warnings))
    said = [error.text for error in log.errors] or list(log.plain)[-_SHOWN_LINES:]
    return NixAnswer(
        succeeded=done.exit_status == 0, said="\n".join(said), warnings=tuple(log.warnings)
    )
