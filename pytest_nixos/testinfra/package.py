"""``host.package``: what a NixOS system is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from testinfra.modules.package import Package

__all__ = ["NixosPackage", "StorePackage", "parse_store_path"]

_SYSTEM = "/run/current-system"
_STORE_NAME = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-([^/]+)")
# builtins.parseDrvName: the version begins at the first dash that a letter does not follow.
_VERSION = re.compile(r"-(?=[^a-zA-Z])")
# Outputs are appended to the name of their derivation; these are the names in use in nixpkgs.
_OUTPUT = re.compile(
    r"-(bin|data|debug|dev|devdoc|devman|dist|doc|docs|examples|getent|info|lib|libgcc|login|man"
    r"|modules|mount|nixsupport|out|py|static|swap|terminfo|tools|xz|zlib)$"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)*[\w.+-]*")
_MARK = "--"

# The closure from the guest's Nix database; where that has none, what can be seen without it:
# programs in the system's profile, and store paths that units and /etc name.
_LIST = r"""
shopt -s nullglob
system=$(readlink -f {system}) sw=$(readlink -f {system}/sw)
nix-store --query --references "$sw"
echo {mark}
nix-store --query --requisites "$system" && echo {mark} && exit 0
echo {mark}
readlink -f "$sw"/bin/* "$sw"/sbin/*
grep -rhoE '/nix/store/[0-9a-z]{{32}}-[^/" ;:]+' "$system"/etc/ 2>/dev/null
true
"""


class StorePackage(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A store path's name taken apart as Nix does.

    :param name: ``openssh`` of ``openssh-9.7p1-man``.
    :param version: ``9.7p1``, or ``""``.
    :param path: top-level store path.
    """

    name: str
    version: str
    path: str


class NixosPackage(Package):
    """Test what is installed: part of the closure of the running system.

    That holds for programs in ``environment.systemPackages`` and for those that only a unit starts.
    The name is the package's own (``pname``), without version.
    """

    _found: tuple[Sequence[StorePackage], Sequence[StorePackage], bool] | None = None

    @classmethod
    def get_module_class(cls, _host: Any) -> type[NixosPackage]:
        return cls

    @property
    def is_installed(self) -> bool:
        """Return whether the running system contains the package.

        :raises RuntimeError: if it was not found and the guest has no Nix database to be sure.
        """
        if self.store_paths:
            return True
        if not self._listed()[2]:
            raise RuntimeError(
                f"cannot tell whether {self.name} is installed: the guest's Nix database does not know "
                f"{_SYSTEM}, and what can be seen without it has no such package"
            )
        return False

    @property
    def is_in_system_path(self) -> bool:
        """Return whether the package is in ``environment.systemPackages``."""
        return any(package.name == self.name for package in self._listed()[0])

    @property
    def version(self) -> str:
        """Return the version; of several, the one in the system's profile, or else the newest.

        A store path need not name one (a script, a package made by hand): then the program of that
        name is asked with ``--version``.

        :raises AssertionError: if the package is not installed, or nobody can tell its version.
        """
        direct = [p for p in self._listed()[0] if p.name == self.name]
        found = direct or self._matching()
        assert found, f"The package {self.name} is not installed"
        versions = [package.version for package in found if package.version]
        return max(versions, key=_version_key) if versions else self._told_version()

    def _told_version(self) -> str:
        places = [f"{path}/bin/{self.name}" for path in self.store_paths]
        for program in (*places, f"{_SYSTEM}/sw/bin/{self.name}"):
            said = self.run("test -x %s && timeout 10 %s --version </dev/null", program, program)
            if said.rc == 0 and (number := _NUMBER.search(f"{said.stdout}{said.stderr}")):
                return str(number[0])
        raise AssertionError(
            f"The package {self.name} is installed, its store path names no version "
            f"({', '.join(self.store_paths)}), and no program {self.name} tells it"
        )

    @property
    def release(self) -> str:
        """Nix packages have no release apart from the version."""
        raise NotImplementedError

    @property
    def store_paths(self) -> Sequence[str]:
        """Return the store paths of the package in the running system, all outputs and versions."""
        return sorted({package.path for package in self._matching()})

    def _matching(self) -> Sequence[StorePackage]:
        direct, closure, _ = self._listed()
        return [p for p in (*direct, *closure) if p.name == self.name]

    @classmethod
    def _listed(cls) -> tuple[Sequence[StorePackage], Sequence[StorePackage], bool]:
        # Kept on the class that testinfra makes for one host in one epoch: a closure has a thousand
        # paths.
        if cls._found is None:
            script = _LIST.format(system=_SYSTEM, mark=_MARK)
            out = cls.run("bash -c %s", script).stdout
            direct, _, rest = out.partition(f"{_MARK}\n")
            closure, _, guess = rest.partition(f"{_MARK}\n")
            complete = bool(closure.strip())
            cls._found = (_packages(direct), _packages(closure or guess), complete)
        return cls._found


def parse_store_path(path: str) -> StorePackage | None:
    """Take a path in the store apart; ``None`` if it is none."""
    match = _STORE_NAME.match(path)
    if match is None:
        return None
    name, version = match[1], ""
    cut = _VERSION.search(name)
    if cut is not None:
        name, version = name[: cut.start()], name[cut.end() :]
        version = _OUTPUT.sub("", version)
    return StorePackage(name=name, version=version, path=match[0])


def _packages(text: str) -> Sequence[StorePackage]:
    found = (parse_store_path(line) for line in text.splitlines())
    return sorted({package for package in found if package is not None})


def _version_key(version: str) -> list[tuple[int, int, str]]:
    """Order versions as Nix does: numbers by value, ``pre`` first, a number after a word."""
    parts = re.findall(r"\d+|[^\d.\-+_]+", version)
    return [(2, int(p), "") if p.isdecimal() else (-1 if p == "pre" else 1, 0, p) for p in parts]
