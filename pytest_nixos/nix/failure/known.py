"""Failures of Nix that are told by their words: what happened, in words of ours, and what to do
about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from pytest_nixos.errors import NixosError

__all__ = [
    "FLAKE_FAILURES",
    "FOREIGN_SYSTEM",
    "MACHINE_FAILURES",
    "NO_CHANNEL",
    "NO_HOSTS",
    "OF_A_FILE",
    "PACKAGES",
    "PURE",
    "UNREACHABLE",
    "Known",
]


class Known(msgspec.Struct, frozen=True):
    """A failure that is told by its words.

    :param pattern: searched in the messages and in plain output, without colour; as text, since most
        runs have no failure and compile none.
    :param says: what happened, with ``{ref}`` and the pattern's groups.
    """

    pattern: str
    says: str
    remedy: str

    def error(
        self, text: str, ref: str, make: Callable[..., NixosError], detail: str
    ) -> NixosError | None:
        """Return the error if `text` shows this failure."""
        found = re.search(self.pattern, text)
        if found is None:
            return None
        groups = {name: value or "" for name, value in found.groupdict().items()}
        return make(
            self.says.format(ref=ref, **groups).rstrip(),
            remedy=self.remedy.format(ref=ref, **groups),
            detail=detail,
        )


def _known(pattern: str, says: str, remedy: str) -> Known:
    """Return a known failure; a ``'`` of `pattern` stands for either quote, as Nix writes ``"``
    from 2.34 on.
    """
    either = pattern.replace("[^'", "[^\0").replace("'", "['\"]").replace("\0", "'\"")
    return Known(either, says, remedy)


MACHINE_FAILURES = (
    _known(
        r"(?m)^(?:error: )?out of memory$|std::bad_alloc|GC Warning: Out of Memory",
        "{ref}: Nix had too little memory",
        "give it more (--nixos-evaluation-memory, if that is set), end other programs, or add swap",
    ),
    _known(
        r"No space left on device|database or disk is full|archive \(Write failed\)",
        "{ref}: the disk is full; Nix could not write what it needs",
        "free space in /nix/store (nix-collect-garbage) and in the temporary directory",
    ),
    _known(
        r"daemon-socket[^\n]*Permission denied",
        "{ref}: the Nix daemon does not serve this user",
        "join the group of /nix/var/nix/daemon-socket (Debian: usermod --append --groups nix-users USER), and log in again",
    ),
    _known(
        r"cannot connect to (?:socket|daemon)|could not connect to any lix socket",
        "{ref}: the Nix daemon does not answer",
        "start it: systemctl start nix-daemon",
    ),
    _known(
        r"(?:creating directory|opening lock file|creating lock file|open)[^\n]*/nix/[^\n]*Permission denied",
        "{ref}: this user may not write the Nix store and no daemon does it",
        "install Nix for several users (with nix-daemon), or run as the user who owns /nix",
    ),
)

NO_HOSTS = _known(
    r"does not provide attribute [^\n]*nixosConfigurations|attribute 'nixosConfigurations' missing",
    "{ref}: this flake has no nixosConfigurations",
    "name a flake that defines hosts as nixosConfigurations.NAME = nixpkgs.lib.nixosSystem {{ ... }}",
)

UNREACHABLE = _known(
    r"(?i)could(?:n't| not) resolve host|unable to download|HTTP error|Connection timed out"
    r"|Failed to connect|Network is unreachable|timeout was reached|could not read from remote",
    "{ref}: this flake or one of its inputs cannot be fetched",
    "check the network and the name; an input can be replaced: --nixos-override-input NAME path:DIR",
)

FOREIGN_SYSTEM = _known(
    r"a '(?P<system>[^']*)' with features .*? is required to build|Required system: '(?P<newer>[^']*)'",
    "{ref}: it must be built on {system}{newer}, and this machine is another",
    "name a remote builder in nix.conf, set boot.binfmt.emulatedSystems, or test this host on such a machine",
)

NO_CHANNEL = _known(
    r"file '(?P<name>[^'/]+)[^']*' was not found in the Nix search path",
    "{ref}: there is no <{name}> in NIX_PATH",
    "say where it is: NIX_PATH={name}=DIR pytest ..., or --nixos-nix-option nix-path {name}=DIR",
)

#: what file-hosts.nix refuses
OF_A_FILE = (
    _known(
        r"pytest-nixos: arguments without a default: (?P<names>[^\n]+)",
        "{ref}: the file wants arguments without a default: {names}",
        "give each a default, as nix-build needs it too: {{ sources ? import ./npins }}: ...;"
        " a NixOS module takes config, lib or pkgs beside them",
    ),
    _known(
        r"pytest-nixos: hosts further down: (?P<first>[^\n,]+)(?P<others>[^\n]*)",
        "{ref}: no host at the top of this file, but further down: {first}{others}",
        "name it: -A {first}",
    ),
)

FLAKE_FAILURES = (
    _known(
        r"could not find a flake\.nix file|does not contain a '(?:/)?flake\.nix'(?!, searching)"
        r"|Couldn't find flake\.nix|is not part of a flake",
        "{ref}: there is no flake.nix there, nor in a directory above it",
        "name the directory that holds flake.nix, for example --nixos-flake ./system#host",
    ),
    _known(
        r"-source/(?:[^\n']*/)?flake\.nix'?:? (?:does not exist|No such file or directory)"
        r"|flake\.nix'[^\n]*not tracked by Git",
        "{ref}: Git does not track flake.nix there, so Nix does not see it",
        "git add flake.nix (no commit is needed), or take the directory as it is with path:DIR",
    ),
    _known(
        r"(?:getting status of|path) '(?P<path>[^'\n]*)'?:? (?:No such file or directory|does not exist)"
        r"|(?:Git repository|repository) '(?P<repo>[^']*)' (?:does not exist|not found)",
        "{ref}: no such file or directory",
        "check the path; a flake ref is a directory, a URL such as github:OWNER/REPO, or a registry name",
    ),
    _known(
        r"cannot find flake '(?P<name>[^']*)' in the flake registries",
        "{ref}: no directory and no entry of the flake registry has this name",
        "write a path as ./DIR or /DIR, or see `nix registry list`",
    ),
    _known(
        r"does not appear to be a git repository|not a git repository"
        r"|revspec '[^']*' not found|fetching the input 'git\+",
        "{ref}: this Git repository or one of its revisions cannot be read",
        "check the URL, its `ref` and `rev`, and that the repository has a commit",
    ),
    UNREACHABLE,
    NO_HOSTS,
    _known(
        r"is not a valid URL",
        "{ref}: this Nix does not take such a flake ref",
        "move or link the flake to a path of plain letters; releases after 2.8 take blanks and others",
    ),
)

PURE = _known(
    r"(?P<what>access to absolute path '[^']*' is forbidden in (?:pure|restricted)[^\n]*"
    r"|cannot (?:call|look up)[^\n]*pure evaluation[^\n]*"
    r"|[^\n]*pure (?:eval|evaluation) mode[^\n]*)",
    "{ref}: the host reads something outside its flake: {what}",
    "move it into the flake or an input of it, or allow it with --nixos-impure",
)

# The words are those of nixpkgs (pkgs/stdenv/generic/check-meta.nix), its quotes too.
PACKAGES = (
    _known(
        r"Package \u2018(?P<name>(?P<pname>[^\u2019]*?)(?:-\d[^\u2019]*)?)\u2019 in [^\n]* has an unfree license \((?P<license>[^)]*)\)",
        "{ref}: it needs {name}, whose license is unfree ({license})",
        'allow it in the host\'s config: nixpkgs.config.allowUnfreePredicate = pkg: builtins.elem (lib.getName pkg) [ "{pname}" ];'
        " or for this run: NIXPKGS_ALLOW_UNFREE=1 in the environment, and --nixos-impure",
    ),
    _known(
        r"Package \u2018(?P<name>[^\u2019]*)\u2019 in [^\n]* is marked as insecure, refusing to evaluate\.\s*"
        r"(?:Known issues:\s*\n(?P<why>(?:[ \t]*- [^\n]*\n?)+))?",
        "{ref}: it needs {name}, which nixpkgs marks as insecure:\n{why}",
        'use another version, or allow it in the host\'s config: nixpkgs.config.permittedInsecurePackages = [ "{name}" ];'
        " or for this run: NIXPKGS_ALLOW_INSECURE=1 in the environment, and --nixos-impure",
    ),
    _known(
        r"Package \u2018(?P<name>[^\u2019]*)\u2019 in [^\n]* is marked as broken",
        "{ref}: it needs {name}, which nixpkgs marks as broken",
        "take it from a release where it works, or try it: NIXPKGS_ALLOW_BROKEN=1 in the environment, and --nixos-impure",
    ),
    _known(
        r"Package \u2018(?P<name>[^\u2019]*)\u2019 in [^\n]* is not available on the requested hostPlatform",
        "{ref}: it needs {name}, which nixpkgs does not have for the system of this host",
        "leave it out for this system (lib.meta.availableOn), or try it: NIXPKGS_ALLOW_UNSUPPORTED_SYSTEM=1 in the environment,"
        " and --nixos-impure",
    ),
)
