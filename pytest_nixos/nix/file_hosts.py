"""Hosts of a Nix file in place of a flake's: ``default.nix`` with npins or channels,
``configuration.nix``.

Nix evaluates a file with everything that it can reach (``NIX_PATH``, the environment, absolute
paths), so that no answer about it is kept between runs, as of any impure evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_nixos.errors import FlakeError, Unanswerable
from pytest_nixos.nix.command.refs import FileRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.evaluate import CONFIGURATIONS, Measured, NixAnswer, what_a_file_holds
from pytest_nixos.nix.expression import attribute_path
from pytest_nixos.nix.flake import Flake

if TYPE_CHECKING:
    from pytest_nixos.nix.dev_shells.shell import DevShell, ShellVisit
    from pytest_nixos.nix.dev_shells.visit import DirenvVisit

__all__ = ["FileHosts", "NoFlake"]

Json = Any


class NoFlake(Unanswerable):
    """Something that only a flake has, asked of hosts that come from a file."""


class FileHosts(Flake):
    """A file's hosts, evaluated and built as a flake's are; what a flake has beside them is not
    there.
    """

    @cached_property
    def metadata(self) -> Mapping[str, Json]:
        """Where the file lies, in the words of ``nix flake metadata``; it has no lock.

        :raises FlakeError: if an input is to be overridden.
        """
        overridden = [name for name, _ in self.nix.settings.override_inputs]
        if overridden:
            raise FlakeError(
                f"{self.ref}: a file has no inputs, and {overridden[0]!r} is to be overridden",
                remedy="pin it as the file does (npins, an argument with a default), or set NIX_PATH",
            )
        folder = self._file.path.parent
        root = next((p for p in (folder, *folder.parents) if (p / ".git").exists()), folder)
        below = "" if root == folder else str(folder.relative_to(root))
        return {
            "url": self.ref.url,
            "path": str(root),
            "original": {"path": str(root), "dir": below},
            "locked": {},
            "locks": {},
        }

    @property
    def root(self) -> Path:
        """The repository that the file lies in, else its folder; Nix makes no copy."""
        return Path(self.metadata["path"])

    def host_names(self) -> tuple[str, ...]:
        """List the hosts as ``-A`` names them: a name that holds a dot is in quotes.

        :raises FlakeError: if the file has hosts only further down, or wants arguments.
        :raises EvalError: if the file does not evaluate.
        """
        lone = self._file.lone_name
        return tuple(n if n == lone else attribute_path(n) for n in super().host_names())

    def evaluate(
        self,
        name: str,
        *,
        backend: str = "auto",
        option_paths: Sequence[str] = (),
        where: Sequence[str] = (),
        refuse_image: bool = False,
        measured: Measured = lambda _: None,
    ) -> HostConfig:
        """Evaluate one host, as of a flake; what the file holds is found out first where commands
        of a remedy depend on it.
        """
        file = self._file
        if name == file.lone_name and not file.holds:
            self.ref = replace(file, holds=what_a_file_holds(self.nix, file))
        return super().evaluate(
            name,
            backend=backend,
            option_paths=option_paths,
            where=where,
            refuse_image=refuse_image,
            measured=measured,
        )

    def fetch(self) -> None:
        """Nothing is known of what evaluating the file reads."""

    def lock_answer(self) -> NixAnswer:
        """Refuse."""
        self._refuse("a lock file")

    def check_answer(self) -> NixAnswer:
        """Refuse."""
        self._refuse("outputs that `nix flake check` evaluates")

    def systems(self) -> tuple[str, ...]:
        """Refuse."""
        self._refuse("outputs by system")

    def dev_shell_names(self) -> Mapping[str, tuple[str, ...]]:
        """Refuse."""
        self._refuse("development shells")

    def dev_shell(self, system: str, name: str) -> DevShell:  # noqa: ARG002 - the base's
        """Refuse."""
        self._refuse("development shells")

    def enter(self, system: str, name: str, *, pure: bool = False) -> ShellVisit:  # noqa: ARG002 - the base's
        """Refuse."""
        self._refuse("development shells")

    def enter_with_direnv(self) -> DirenvVisit:
        """Refuse."""
        self._refuse("development shells")

    @property
    def _file(self) -> FileRef:
        assert isinstance(self.ref, FileRef)
        return self.ref

    def _of_output(self, output: str, expression: str, *, about: str = "") -> Json:
        if output != CONFIGURATIONS:
            self._refuse(output)
        return super()._of_output(output, expression, about=about)

    def _refuse(self, what: str) -> NoReturn:
        raise NoFlake(
            f"the host comes from a file, not from a flake: it has no {what}",
            remedy="put a flake.nix beside the file, and test it with --nixos-flake",
        )
