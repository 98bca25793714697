"""Flake refs and host refs: pure values that parse what a user types."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pytest_nixos.errors import SettingsError

__all__ = [
    "FileRef",
    "FlakeRef",
    "HomesRef",
    "HostRef",
    "HostSelection",
    "NixosTestRef",
    "UpgradeFrom",
    "at_revision",
    "nix_quote",
]

_A_FILE = "name a Nix file: ./default.nix, /etc/nixos/configuration.nix; a flake is --nixos-flake"
_CONFIGURATIONS = "nixosConfigurations."
_HOMES = "homeConfigurations"
_NODES = ".nodes."
_FORGES = ("github", "gitlab", "sourcehut")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_QUOTED = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"', re.DOTALL)
_URL_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class FlakeRef:
    """Where a flake is, as Nix's command line takes it: ``path-or-url`` without a fragment.

    A local path is made absolute, so that a later change of directory cannot move it.
    Registry names (``nixpkgs``, ``nixpkgs/nixos-24.05``) and URLs stay as they are.
    """

    url: str

    @classmethod
    def parse(cls, text: str, *, cwd: Path) -> FlakeRef:
        """Read a flake ref as typed.

        :param text: ``.``, ``./dir``, ``/dir``, ``dir`` (if it exists), ``path:...``,
            ``git+file:...``, ``github:owner/repo``, or a registry name.
        :param cwd: directory that relative paths start from.
        """
        if _URL_SCHEME.match(text):
            return cls(_absolute_scheme(text, cwd))
        if text in ("", ".") or text.startswith(("./", "../", "/", "~")) or text == "..":
            return cls(str(_resolve(text or ".", cwd)))
        if (cwd / text / "flake.nix").is_file():
            return cls(str(_resolve(text, cwd)))
        return cls(text)

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True, order=True)
class FileRef(FlakeRef):
    """A Nix file that holds hosts, in place of a flake: ``default.nix``, ``configuration.nix``.

    Its `url` is the file's absolute path.

    :ivar holds: ``set`` of hosts, one ``host``, a ``module``; ``""`` as long as nobody has asked.
    """

    holds: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str, *, cwd: Path) -> FileRef:
        """Read a path as typed; a directory stands for its ``default.nix``.

        :raises SettingsError: if there is no such file, or it is a flake's.
        """
        if not text:
            raise SettingsError("--nixos-file: the value is empty", remedy=_A_FILE)
        path = _resolve(text, cwd)
        file = path / "default.nix" if path.is_dir() else path
        if file.name == "flake.nix" or (not file.is_file() and (path / "flake.nix").is_file()):
            folder = file.parent
            raise SettingsError(
                f"--nixos-file {text!r}: that is a flake", remedy=f"write --nixos-flake {folder}"
            )
        if not file.is_file():
            raise SettingsError(
                f"--nixos-file {text!r}: there is no file {file}",
                remedy=_A_FILE,
            )
        return cls(str(file))

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.url)

    @property
    def lone_name(self) -> str:
        """What the host is called where the file is one host or module: the file's name, or its
        folder's.
        """
        return self.path.stem if self.path.name != "default.nix" else self.path.parent.name

    def by_hand(self, host: str, path: str) -> tuple[str, ...]:
        """Return how ``nix-instantiate`` is asked for an attribute of a host."""
        if host != self.lone_name or self.holds == "set":
            return (str(self), "-A", f"{host}.{path}")
        if self.holds == "host":
            return (str(self), "-A", path)
        return ("<nixpkgs/nixos>", "-A", path, "-I", f"nixos-config={self}")


@dataclass(frozen=True, slots=True, order=True)
class NixosTestRef(FlakeRef):
    """A NixOS test among the outputs of a flake, whose nodes are hosts; its `url` is the flake's.

    :param attribute: the test's attribute path, as ``nix build`` takes it.
    """

    attribute: str = ""

    @property
    def name(self) -> str:
        """What the test is called: the last name of its path."""
        return self.attribute.rpartition(".")[2].strip('"')


@dataclass(frozen=True, slots=True, order=True)
class HomesRef(FlakeRef):
    """The ``homeConfigurations`` of a flake, whose homes are hosts; its `url` is the flake's."""


class HostRef(msgspec.Struct, frozen=True, order=True):
    """One host of a flake: ``flake#attr``, where `attr` names an entry of ``nixosConfigurations``;
    or one node of a NixOS test, or a home of ``homeConfigurations``.

    The attribute name may hold dots and dashes; it is one name, never a path, as for
    ``nixos-rebuild``. ``web^gaming`` is the specialisation ``gaming`` of ``web``, where no entry
    has that very name.
    """

    flake: FlakeRef
    attr: str

    @property
    def name(self) -> str:
        """What a run calls the host: a node bears its test's name too."""
        return (
            f"{self.flake.name}.{self.attr}" if isinstance(self.flake, NixosTestRef) else self.attr
        )

    @property
    def config(self) -> str:
        """The host's evaluated config as an attribute path of its flake."""
        if isinstance(self.flake, NixosTestRef):
            return f"{self.flake.attribute}.nodes.{nix_quote(self.attr)}"
        if isinstance(self.flake, HomesRef):
            return f"{_HOMES}.{nix_quote(self.attr)}.config"
        parent, _, child = self.attr.rpartition("^")
        path = f"{nix_quote(self.attr)}.config"
        if parent and child:
            path = f"{nix_quote(parent)}.config.specialisation.{nix_quote(child)}.configuration"
        return f"{_CONFIGURATIONS}{path}"

    def __str__(self) -> str:
        """Return the host as ``--nixos-flake`` takes it; of a file, what ``--nixos-file`` and ``-A``
        take; of a test, what ``--nixos-test`` takes.
        """
        if isinstance(self.flake, NixosTestRef):
            return f"{self.flake}#{self.flake.attribute}{_NODES}{self.attr}"
        if isinstance(self.flake, FileRef):
            return f"{shlex.quote(self.flake.url)} -A {shlex.quote(self.attr)}"
        plain = not re.search(r'[#"]', self.attr) and not self.attr.startswith(
            (_CONFIGURATIONS, _HOMES)
        )
        name = self.attr if plain else nix_quote(self.attr)
        return f"{self.flake}#{f'{_HOMES}.' if isinstance(self.flake, HomesRef) else ''}{name}"


@dataclass(frozen=True, slots=True)
class HostSelection:
    """What one ``--nixos-flake`` names: one host, or with ``attr=None`` all hosts of the flake.

    :param is_bare: whether the host was named without the output that it is of.
    """

    flake: FlakeRef
    attr: str | None
    is_bare: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str, *, cwd: Path, asked_by: str = "--nixos-flake") -> HostSelection:
        """Read ``REF``, ``REF#HOST``, ``#HOST`` or ``REF#nixosConfigurations.HOST``; of homes
        ``REF#homeConfigurations`` and ``REF#homeConfigurations.NAME``.

        A host in quotes is a string of Nix, so that any name can be written: :func:`nix_quote`.

        :param asked_by: whose value it is, for the error.
        :raises SettingsError: if the text has an empty host or more than one ``#``.
        """
        url, sep, fragment = text.partition("#")
        flake = FlakeRef.parse(url, cwd=cwd)
        if not sep:
            return cls(flake, None)
        if fragment == _HOMES:
            return cls(HomesRef(flake.url), None)
        is_bare = not fragment.startswith((_CONFIGURATIONS, f"{_HOMES}."))
        if fragment.startswith(f"{_HOMES}."):
            flake = HomesRef(flake.url)
        name = fragment.removeprefix(_CONFIGURATIONS).removeprefix(f"{_HOMES}.")
        quoted = _QUOTED.fullmatch(name)
        attr = _unescaped(quoted["text"]) if quoted else name
        if not attr or (not quoted and "#" in name):
            raise SettingsError(
                f"{asked_by} {text!r}: no host name after '#'"
                if not attr
                else f"{asked_by} {text!r}: more than one '#'",
                remedy="write REF#HOST, for example .#myhost, or REF alone for all hosts",
            )
        return cls(flake, attr, is_bare)

    @classmethod
    def parse_test(cls, text: str, *, cwd: Path) -> HostSelection:
        """Read ``REF#ATTRIBUTE`` of a NixOS test, or ``REF#ATTRIBUTE.nodes.NODE``.

        :raises SettingsError: if it names no attribute.
        """
        url, _, fragment = text.partition("#")
        attribute, _, node = fragment.partition(_NODES)
        if not attribute or "#" in fragment:
            raise SettingsError(
                f"--nixos-test {text!r}: names no test",
                remedy="write it as for nix build: .#checks.x86_64-linux.mytest; one node of it: "
                ".#checks.x86_64-linux.mytest.nodes.machine",
            )
        test = NixosTestRef(FlakeRef.parse(url, cwd=cwd).url, attribute)
        return cls(test, node.strip('"') or None)

    @property
    def host(self) -> HostRef | None:
        """The one host selected, if one is."""
        return None if self.attr is None else HostRef(self.flake, self.attr)


def at_revision(flake: FlakeRef, revision: str) -> FlakeRef:
    """Return the same flake at a git revision.

    :param revision: a commit's 40 hexadecimal digits, or the name of a branch or tag.
    :raises SettingsError: if the flake is not kept in git, or its kind has no revisions.
    """
    if isinstance(flake, FileRef):
        raise SettingsError(
            f"{flake}: a file has no revision {revision!r}",
            remedy="give the other version as a flake ref, or a checkout of it",
        )
    kind, _, rest = flake.url.partition(":")
    if kind in _FORGES and rest.count("/") >= 1:
        owner, name = rest.partition("?")[0].split("/")[:2]
        return FlakeRef(f"{kind}:{owner}/{name}/{revision}")
    if kind.startswith("git+") or kind == "git":
        return FlakeRef(_with_revision(flake.url, revision))
    if flake.url.startswith("/") or kind == "path":
        directory = Path(flake.url if flake.url.startswith("/") else rest.partition("?")[0])
        root = next((p for p in (directory, *directory.parents) if (p / ".git").exists()), None)
        if root is not None:
            below = directory.relative_to(root)
            url = f"git+file://{root}" + ("" if below == Path() else f"?dir={below}")
            return FlakeRef(_with_revision(url, revision))
    raise SettingsError(
        f"{flake}: has no revision {revision!r}: it is not kept in git",
        remedy="give the other version as a flake ref of its own, for example path:/srv/infra-old",
    )


def _with_revision(url: str, revision: str) -> str:
    base, _, query = url.partition("?")
    kept = [part for part in query.split("&") if part and part.split("=")[0] not in ("rev", "ref")]
    kept.append(f"rev={revision}" if _COMMIT.fullmatch(revision) else f"ref={revision}")
    return f"{base}?{'&'.join(kept)}"


class UpgradeFrom(msgspec.Struct, frozen=True):
    """What ``--nixos-upgrade-from`` names: another flake, one host of it, or a git revision of
    the tested flake.
    """

    selection: HostSelection | None
    revision: str = ""

    @classmethod
    def parse(cls, text: str, *, cwd: Path) -> UpgradeFrom:
        """Read ``REF``, ``REF#HOST`` or a revision: a word without ``:``, ``/``, ``#`` and a
        leading dot.

        :raises SettingsError: if the text has an empty host or more than one ``#``.
        """
        if re.search(r"[:/#]", text) or text.startswith("."):
            return cls(HostSelection.parse(text, cwd=cwd))
        return cls(None, text)

    def of(self, new: HostRef) -> HostRef:
        """Return the host that `new` is upgraded from."""
        if self.selection is None:
            return HostRef(at_revision(new.flake, self.revision), new.attr)
        return HostRef(self.selection.flake, self.selection.attr or new.attr)


def nix_quote(text: str) -> str:
    """Write `text` as a Nix string literal, interpolation escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'


def _unescaped(text: str) -> str:
    control = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(r"\\(.)", lambda found: control.get(found[1], found[1]), text, flags=re.DOTALL)


def _resolve(text: str, cwd: Path) -> Path:
    """Make a path absolute.

    :raises SettingsError: if a link leads to itself, or the path cannot be followed otherwise.
    """
    try:
        return (cwd / Path(text).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as err:
        raise SettingsError(
            f"{text!r}: this path cannot be followed: {err}", remedy="name a path that exists"
        ) from err


def _absolute_scheme(text: str, cwd: Path) -> str:
    for scheme in ("path:", "git+file:"):
        rest = text.removeprefix(scheme)
        if rest != text and not rest.startswith("/"):
            path, query, parameters = rest.partition("?")
            return f"{scheme}{_resolve(path, cwd)}{query}{parameters}"
    return text
