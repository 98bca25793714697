"""Command lines of ``nix``, as values, that work from Nix 2.8 to 2.35 and in Lix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.nix.command.refs import FileRef, FlakeRef, nix_quote

__all__ = [
    "NixSettings",
    "build_ahead_argv",
    "build_argv",
    "check_argv",
    "closure_argv",
    "closure_size_argv",
    "config_argvs",
    "develop_argv",
    "dump_database_argv",
    "eval_argv",
    "export_argv",
    "flake_options",
    "lock_check_argv",
    "lock_copy_argv",
    "log_argv",
    "metadata_argv",
    "prefetch_argv",
    "rebuild_argv",
    "requisites_argv",
    "root_argv",
    "roots_argv",
    "version_argv",
]

_FLAKES = ("--extra-experimental-features", "nix-command flakes")
_LOG = ("--log-format", "internal-json")
# From 2.33 on the form of `path-info --json` has to be asked for by its number; Lix knows no such
# option.
_JSON_FORMAT_SINCE = (2, 33)
# From 2.15 on `/nix/store/x.drv` names the derivation itself and `^*` its outputs; 2.8 knows no
# `^`.
_OUTPUT_SYNTAX_SINCE = (2, 15)


class NixSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the user can set about Nix.

    :param program: name or path of ``nix``.
    :param override_inputs: pairs of input name and flake ref, as ``--override-input`` takes them.
    :param nix_options: pairs of name and value for ``--option``.
    :param impure: evaluate with ``--impure``; such evaluations are not cached.
    :param evaluation_limit_s: for one evaluation, fetching of inputs included.
    :param evaluation_limit_mib: memory that one evaluation may take, ``None`` for no limit.
    :param build_limit_s: for one build.
    :param cache: where evaluations are kept, ``None`` for nowhere.
    """

    program: str = "nix"
    override_inputs: tuple[tuple[str, str], ...] = ()
    nix_options: tuple[tuple[str, str], ...] = ()
    impure: bool = False
    evaluation_limit_s: float = 1800.0
    evaluation_limit_mib: int | None = None
    build_limit_s: float = 6 * 3600.0
    cache: EvaluationCache | None = None

    @property
    def pure(self) -> bool:
        """Whether an evaluation depends on the flake and its inputs alone."""
        return not self.impure and not {"pure-eval", "impure"} & {
            name for name, _ in self.nix_options
        }


def version_argv(settings: NixSettings) -> tuple[str, ...]:
    """Return the command that tells the version."""
    return (settings.program, "--version")


def log_argv(settings: NixSettings, derivation: str) -> tuple[str, ...]:
    """Return the command that prints the kept log of a build."""
    return (settings.program, *_FLAKES, "log", derivation)


def metadata_argv(settings: NixSettings, flake: FlakeRef) -> tuple[str, ...]:
    """Return the command that locks a flake in memory and tells its content."""
    return (
        *_nix_words(settings, "flake", "metadata"),
        *flake_options(settings),
        "--show-trace",  # the trace names the input that cannot be fetched
        "--json",
        str(flake),
    )


def eval_argv(
    settings: NixSettings, flake: FlakeRef, output: str, expression: str
) -> tuple[str, ...]:
    """Return the command that applies `expression` to one top-level output of a flake, or to what
    stands in a file.
    """
    return (
        *_limited(settings.evaluation_limit_mib),
        *_nix_words(settings, "eval"),
        *_named(settings, flake),
        *("--option", "eval-cache", "false"),  # it would hide an error's text on the second run
        "--show-trace",
        "--json",
        "" if isinstance(flake, FileRef) else f"{flake}#{output}",
        *("--apply", expression),
    )


def build_argv(
    settings: NixSettings, derivation: str, *, gc_root: Path, version: str
) -> tuple[str, ...]:
    """Return the command that builds all outputs of a derivation.

    :param version: what ``nix --version`` says.
    """
    return (
        *_nix_words(settings, "build"),
        "--json",
        *("--out-link", str(gc_root)),
        f"{derivation}{_all_outputs(version)}",
    )


def build_ahead_argv(
    settings: NixSettings, derivations: Sequence[str], *, version: str
) -> tuple[str, ...]:
    """Return the command that builds as many of `derivations` as can be built, and makes no link.

    :param version: what ``nix --version`` says.
    """
    return (
        *_nix_words(settings, "build"),
        "--no-link",
        "--keep-going",
        *(f"{derivation}{_all_outputs(version)}" for derivation in derivations),
    )


def root_argv(settings: NixSettings, output: str, *, gc_root: Path) -> tuple[str, ...]:
    """Return the command that keeps a valid store path from the garbage collector, and fails on
    any other.

    It builds and fetches nothing, evaluates nothing and takes 20 ms.
    """
    options = [word for pair in settings.nix_options for word in ("--option", *pair)]
    return (
        *("nix-store", "--realise", *options),
        *("--option", "substitute", "false"),
        *("--add-root", str(gc_root)),
        output,
    )


def export_argv(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the command that writes `paths` as ``nix-store --import`` reads them."""
    return ("nix-store", "--export", *map(str, paths))


def dump_database_argv(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the command that writes what the database knows of `paths`, for ``nix-store
    --load-db``.
    """
    return ("nix-store", "--dump-db", *map(str, paths))


def closure_argv(settings: NixSettings, path: Path) -> tuple[str, ...]:
    """Return the command that lists the closure of a store path."""
    return (*_nix_words(settings, "path-info"), "--recursive", str(path))


def closure_size_argv(settings: NixSettings, path: Path, *, version: str) -> tuple[str, ...]:
    """Return the command that tells the size of a store path's closure.

    :param version: what ``nix --version`` says.
    """
    return (
        *_nix_words(settings, "path-info"),
        "--closure-size",
        "--json",
        *(("--json-format", "1") if _wants_json_format(version) else ()),
        str(path),
    )


def prefetch_argv(settings: NixSettings, url: str) -> tuple[str, ...]:
    """Return the command that puts the source of a flake into the store and tells where, from
    Nix 2.15 on.

    :param url: the flake, not by a name of the registry: no registry is asked.
    """
    return (
        *_nix_words(settings, "flake", "prefetch"),
        *("--option", "flake-registry", ""),
        "--json",
        url,
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
        *_nix_words(settings, "develop"),
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
        *_nix_words(settings, "flake", "metadata"),
        *("--no-update-lock-file", "--no-write-lock-file"),
        "--json",
        str(flake),
    )


def lock_copy_argv(settings: NixSettings, directory: str) -> tuple[str, ...]:
    """Return the command that locks a copy of a flake with the inputs that are to be replaced."""
    overrides = [w for pair in settings.override_inputs for w in ("--override-input", *pair)]
    return (*_nix_words(settings, "flake", "lock"), *overrides, f"path:{directory}")


def config_argvs(settings: NixSettings) -> tuple[tuple[str, ...], ...]:
    """Return commands of which one tells Nix's settings: the name from 2.20 on, and the one of
    before and of Lix.
    """
    return tuple(
        (*_nix_words(settings, *words), "--json")
        for words in (("config", "show"), ("show-config",))
    )


def check_argv(settings: NixSettings, flake: FlakeRef) -> tuple[str, ...]:
    """Return the command that evaluates all outputs of a flake and builds none."""
    return (
        *_nix_words(settings, "flake", "check"),
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
        *_nix_words(settings, "build"),
        *("--rebuild", "--keep-going", "--no-link"),
        *(f"{derivation}{_all_outputs(version)}" for derivation in derivations),
    )


def _nix_words(settings: NixSettings, *command: str) -> tuple[str, ...]:
    """Return the start of a command line: program, features, log format and the user's settings."""
    options = [word for pair in settings.nix_options for word in ("--option", *pair)]
    return (settings.program, *_FLAKES, *command, *_LOG, *options)


def flake_options(settings: NixSettings) -> tuple[str, ...]:
    """Return what keeps the user's lock file as it is and replaces the inputs that are to be
    replaced.
    """
    overrides = [w for pair in settings.override_inputs for w in ("--override-input", *pair)]
    return ("--no-write-lock-file", *overrides)


def _all_outputs(version: str) -> str:
    """Return what follows a derivation that is to be built: nothing where Nix does not know the
    syntax.
    """
    return "^*" if _release(version) >= _OUTPUT_SYNTAX_SINCE else ""


def _limited(memory_mib: int | None) -> tuple[str, ...]:
    """Return what runs the command behind it with at most that much memory (``RLIMIT_DATA``,
    getrlimit(2)).
    """
    if memory_mib is None:
        return ()
    return ("/bin/sh", "-c", 'ulimit -d "$0" && exec "$@"', str(memory_mib * 1024))


def _wants_json_format(version: str) -> bool:
    return "Lix" not in version and _release(version) >= _JSON_FORMAT_SINCE


def _release(version: str) -> tuple[int, int]:
    """Read major and minor out of ``nix (Nix) 2.8.0``, ``nix (Lix, like Nix) 2.91.1``, ``...
    2.33pre2026``.
    """
    found = re.findall(r"(\d+)\.(\d+)", version)
    return (int(found[-1][0]), int(found[-1][1])) if found else _OUTPUT_SYNTAX_SINCE


def _named(settings: NixSettings, flake: FlakeRef) -> tuple[str, ...]:
    """Return what goes with the name of a flake, or names a file, which Nix never evaluates purely."""
    if isinstance(flake, FileRef):
        return ("--impure", "--file", flake.url)
    return (*flake_options(settings), *_impure(settings))


def _impure(settings: NixSettings) -> tuple[str, ...]:
    return ("--impure",) if settings.impure else ()


def _each(option: str, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (option, value))
