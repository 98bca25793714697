"""Command lines of ``nix`` about a flake itself: its outputs, its lock file, its development shells, a rebuild."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pytest_nixos.nix.argv import NixSettings, all_outputs, flake_options, nix_words
from pytest_nixos.nix.expression import expression_sources
from pytest_nixos.nix.refs import FlakeRef, nix_quote

__all__ = [
    "check_argv",
    "dev_shells_expression",
    "develop_argv",
    "hosts_expression",
    "image_expression",
    "lock_check_argv",
    "lock_copy_argv",
    "output_argv",
    "rebuild_argv",
    "requisites_argv",
    "roots_argv",
]


def output_argv(
    settings: NixSettings, flake: FlakeRef, output: str, expression: str
) -> tuple[str, ...]:
    """Return the command that applies `expression` to one top-level output of a flake."""
    return (
        *nix_words(settings, "eval"),
        *flake_options(settings),
        *_impure(settings),
        *("--option", "eval-cache", "false"),
        "--json",
        f"{flake}#{output}",
        *("--apply", expression),
    )


def dev_shells_expression(request: Mapping[str, str]) -> str:
    """Return the function that turns ``devShells`` into a document.

    :param request: ``system`` and ``shell`` for one shell; empty for the names of all.
    """
    source = expression_sources()
    data = nix_quote(json.dumps(dict(request)))
    return (
        f"let safe = (\n{source['safe.nix']}\n); in (\n{source['dev-shells.nix']}\n)"
        f" {{ inherit safe; request = builtins.fromJSON {data}; }}"
    )


def hosts_expression() -> str:
    """Return the function that turns ``nixosConfigurations`` into names and addresses of all hosts."""
    source = expression_sources()
    return (
        f"let safe = (\n{source['safe.nix']}\n); in (\n{source['hosts.nix']}\n) {{ inherit safe; }}"
    )


def image_expression(host: str) -> str:
    """Return the function that turns ``nixosConfigurations`` into the derivation of a host's container template."""
    source = expression_sources()
    return (
        f"let safe = (\n{source['safe.nix']}\n); in (\n{source['lxc-image.nix']}\n)"
        f" {{ inherit safe; name = {nix_quote(host)}; }}"
    )


def develop_argv(
    settings: NixSettings,
    flake: FlakeRef,
    *,
    system: str,
    shell: str,
    command: Sequence[str],
    kept: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Return the command that runs `command` in a development shell.

    :param kept: enter with an empty environment but for these variables; ``None`` to keep all.
    """
    ignore = () if kept is None else ("--ignore-environment", *_each("--keep", kept))
    return (
        *nix_words(settings, "develop"),
        *flake_options(settings),
        *_impure(settings),
        *ignore,
        f"{flake}#devShells.{nix_quote(system)}.{nix_quote(shell)}",
        *("--command", *command),
    )


def lock_check_argv(settings: NixSettings, flake: FlakeRef) -> tuple[str, ...]:
    """Return the command that fails where ``flake.lock`` does not fit ``flake.nix``.

    No input is replaced: that would change the lock file.
    """
    return (
        *nix_words(settings, "flake", "metadata"),
        *("--no-update-lock-file", "--no-write-lock-file"),
        "--json",
        str(flake),
    )


def lock_copy_argv(settings: NixSettings, directory: str) -> tuple[str, ...]:
    """Return the command that locks a copy of a flake with the inputs that are to be replaced."""
    overrides = [w for pair in settings.override_inputs for w in ("--override-input", *pair)]
    return (*nix_words(settings, "flake", "lock"), *overrides, f"path:{directory}")


def check_argv(settings: NixSettings, flake: FlakeRef) -> tuple[str, ...]:
    """Return the command that evaluates all outputs of a flake and builds none."""
    return (
        *nix_words(settings, "flake", "check"),
        *flake_options(settings),
        *_impure(settings),
        "--no-build",
        str(flake),
    )


def requisites_argv(derivation: str) -> tuple[str, ...]:
    """Return the command that lists all derivations that `derivation` is built from."""
    return ("nix-store", "--query", "--requisites", derivation)


def roots_argv() -> tuple[str, ...]:
    """Return the command that lists what keeps store paths from the garbage collector."""
    return ("nix-store", "--gc", "--print-roots")


def rebuild_argv(
    settings: NixSettings, derivations: Sequence[str], *, version: str
) -> tuple[str, ...]:
    """Return the command that builds derivations again and compares.

    :param version: what ``nix --version`` says.
    """
    return (
        *nix_words(settings, "build"),
        *("--rebuild", "--keep-going", "--no-link"),
        *(f"{derivation}{all_outputs(version)}" for derivation in derivations),
    )


def _impure(settings: NixSettings) -> tuple[str, ...]:
    return ("--impure",) if settings.impure else ()


def _each(option: str, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (option, value))
