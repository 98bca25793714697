"""Failures for which the flake's owner has a reason, in the words of Nix 2.8.0 and 2.26.3
(recorded).
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import EvalError, FlakeError, NixosError
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.log import NixLog
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.places import Places
from pytest_nixos.nix.failure.evaluation import evaluation_failure, flake_failure
from pytest_nixos.nix.failure.owners import Circumstances, local_directory

OWN = "/nix/store/whzb4mhi0c85g01a5vmc0v5yqlz3g939-source"
INPUT = "/nix/store/yvq45id7jj20sqawql20gppaxmdj03r8-source"
NIXPKGS = "/nix/store/qqvpy830cp2r69zb7yzd9a68hinhcbvd-source"
URL = "git+ssh://git@example.org/me/secret.git"


def metadata(where: str = "/srv/shared") -> Mapping[str, Any]:
    return {
        "locked": {"narHash": "sha256-Pi1iVlrp3AKOoCXmoprnMYpG4g7jXidJQiQ71eSBCIg=", "type": "path"},
        "path": OWN,
        "locks": {
            "root": "root",
            "nodes": {
                "root": {"inputs": {"shared": "r", "secret": "secret"}},
                "r": {
                    "locked": {
                        "type": "git",
                        "url": f"file://{where}",
                        "narHash": "sha256-lE3nhcUdftbvBqIFwo3rTuVCj+Xk64Fk9ls/KEIwPUg=",
                    }
                },
                "secret": {"locked": {"type": "git", "url": "ssh://git@example.org/me/secret.git"}},
            },
        },
    }  # fmt: skip


def log(text: str, *, whole: str = "", file: str = "", line: int = 0, plain: str = "") -> NixLog:
    made = NixLog()
    event = {"action": "msg", "level": 0, "msg": whole or f"error: {text}", "raw_msg": text}
    made.feed("@nix " + json.dumps({**event, "file": file or None, "line": line or None}))
    for said in plain.splitlines():
        made.feed(said)
    return made


def explained(made: NixLog, flake: str = "/f", **known: Any) -> NixosError:
    around = Circumstances(version=lambda: "nix (Nix) 2.8.0", **{"metadata": metadata(), **known})
    return evaluation_failure(HostRef(FlakeRef(flake), "web"), made, 1, around)


REFUSED = """ssh: connect to host example.org port 22: Connection refused
fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists."""

# While it locks, and while it evaluates with a lock: only the trace names the input, or the lock
# knows it by its URL.
PRIVATE = {
    "2.8 locks": log(
        "program 'git' failed with exit code 128",
        whole="error: program 'git' failed with exit code 128\n\n"
        f"       … while fetching the input '{URL}'\n\n       … while updating the flake input 'secret'\n\n"
        "       … while updating the lock file of flake 'path:/tmp/exp/p?lastModified=1795905287'",
        plain=REFUSED,
    ),
    "2.26 locks": log(
        "resolving Git reference 'master': revspec 'master' not found",
        whole="error:\n       … while updating the lock file of flake 'path:/tmp/exp/p?lastModified=1795905021'\n\n"
        "       … while updating the flake input 'secret'\n\n"
        f"       … while fetching the input '{URL}'\n\n"
        "       error: resolving Git reference 'master': revspec 'master' not found",
        plain=REFUSED,
    ),
    "2.26 evaluates": log(
        "Cannot find Git revision '28a3b95d' in ref 'main' of repository 'ssh://git@example.org/me/secret.git'!",
        whole="error:\n       … while calling the 'fetchFinalTree' builtin\n"
        "         at «nix-internal»/call-flake.nix:56:11:\n\n"
        f"       … while fetching the input '{URL}?ref=main&rev=28a3b95d&shallow=1'\n\n"
        "       error: Cannot find Git revision '28a3b95d' in ref 'main' of repository"
        " 'ssh://git@example.org/me/secret.git'!",
        plain=REFUSED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("made", PRIVATE.values(), ids=PRIVATE)
def test_a_private_input_is_named_with_the_words_of_git_and_three_ways_out(made: NixLog) -> None:
    for error in (
        explained(made),
        flake_failure(FlakeRef("/f"), made, 1, Circumstances(metadata=metadata())),
    ):
        assert type(error) is FlakeError
        assert f": the input secret ({URL}" in error.message
        assert "Connection refused; fatal: Could not read from remote repository." in error.message
        assert "--nixos-override-input secret path:DIR" in error.remedy
        assert "git ls-remote ssh://git@example.org/me/secret.git" in error.remedy
        assert "--nixos-nix-option access-tokens example.org=TOKEN" in error.remedy  # fmt: skip


def test_a_repository_of_this_machine_needs_neither_ssh_nor_credentials() -> None:
    made = log(
        "program 'git' failed with exit code 128",
        whole="error: program 'git' failed with exit code 128\n\n"
        "       … while fetching the input 'git+file:///srv/absent'\n\n       … while updating the flake input 'secret'",
        plain="fatal: '/srv/absent' does not appear to be a git repository\nfatal: Could not read from remote repository.",
    )  # fmt: skip
    error = explained(made)
    assert "does not appear to be a git repository" in error.message
    assert error.remedy == "give it from elsewhere: --nixos-override-input secret path:DIR"


def test_an_input_of_a_forge_is_known_by_its_tarball() -> None:
    lock = {
        "root": "root",
        "nodes": {
            "root": {"inputs": {"home": "h"}},
            "h": {"locked": {"type": "github", "owner": "me", "repo": "home"}},
        },
    }
    made = log(
        "unable to download 'https://api.github.com/repos/me/home/tarball/28a3b95d': HTTP error 404"
    )
    error = explained(made, metadata={"locks": lock})
    assert (
        "the input home (https://api.github.com/repos/me/home/tarball/28a3b95d) cannot be fetched: "
        in error.message
    )
    assert "HTTP error 404" in error.message  # fmt: skip


ABSENT = {
    "2.8": log(
        "getting status of '/home/me/absent': No such file or directory",
        whole="error: getting status of '/home/me/absent': No such file or directory\n\n"
        "       … while fetching the input 'path:/home/me/absent'\n\n       … while updating the flake input 'secret'\n\n"
        "       … while updating the lock file of flake 'git+file:///f'",
    ),
    "2.26": log(
        "path '//home/me/absent' does not exist",
        whole="error:\n       … while updating the lock file of flake 'path:/f?lastModified=1795967337'\n\n"
        "       … while updating the flake input 'secret'\n\n       … while fetching the input 'path:/home/me/absent'\n\n"
        "       error: path '//home/me/absent' does not exist",
    ),
}  # fmt: skip


@pytest.mark.parametrize("made", ABSENT.values(), ids=ABSENT)
@pytest.mark.parametrize(
    ("given", "remedy"), [((), "from where it lies here"), ((("secret", "path:/home/me/absent"),), "correct the path")]
)  # fmt: skip
def test_a_directory_that_is_no_input_is_told_of_the_input_not_of_the_flake(
    made: NixLog, given: tuple[tuple[str, str], ...], remedy: str
) -> None:
    around = Circumstances(settings=NixSettings(override_inputs=given), metadata=metadata())
    for error in (
        evaluation_failure(HostRef(FlakeRef("/f"), "web"), made, 1, around),
        flake_failure(FlakeRef("/f"), made, 1, around),
    ):
        assert "the input secret (path:/home/me/absent) is not there" in error.message
        assert error.message.endswith(": no such file or directory: /home/me/absent")
        assert remedy in error.remedy and "--nixos-override-input secret path:DIR" in error.remedy


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        ("unsupported tarball input attribute 'lastModified'", "its 'lastModified' needs Nix 2.17"),
        ("unsupported Git input attribute 'exportIgnore'", "its 'exportIgnore' needs Nix 2.20"),
        ("input attribute 'lfs' not supported by scheme 'git'", "its 'lfs' needs Nix 2.27"),
        (
            """lockfile contains mutable lock '{"path":"./sub","type":"path"}'""",
            "its 'parent' needs Nix 2.26",
        ),
        (f"lock file '{OWN}//flake.lock' has unsupported version 8", "its format 8 is of a later Nix"),
    ],
)  # fmt: skip
def test_a_lock_of_a_newer_nix(words: str, needs: str) -> None:
    error = explained(log(words))
    assert type(error) is FlakeError
    assert "flake.lock was written by a newer Nix: " + needs in error.message
    assert error.message.endswith("found nix (Nix) 2.8.0")
    assert "on PATH" in error.remedy


def test_a_misspelt_attribute_is_no_newer_lock() -> None:
    assert "newer Nix" not in explained(log("unsupported Git input attribute 'reff'")).message


@pytest.mark.parametrize("file", ["hosts/key.nix", "hosts/key.nix:1:2"])
def test_a_file_that_git_crypt_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    tree = tmp_path / "tree"
    (tree / ".git").mkdir(parents=True)
    # 2.8 shows nothing of the file, 2.26 its first line.
    shown = "error: syntax error, unexpected end of file\n            1| \0GITCRYPT\0abcdefghijk"
    error = explained(
        log("syntax error, unexpected end of file", whole=shown, file=f"{OWN}/{file}", line=1), f"{tree}"
    )  # fmt: skip
    assert error.message == f"{tree}#web: hosts/key.nix is locked by git-crypt"
    assert f"cd {tree} && git-crypt unlock" in error.remedy
    assert f"--nixos-flake path:{tree}#web" in error.remedy


def test_a_locked_file_is_known_by_how_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pytest_nixos.nix.failure.owners._begins_with", lambda path, _: "key" in str(path)
    )
    made = log("syntax error, unexpected end of file", file=f"{INPUT}/key.nix", line=1)
    error = explained(made)
    assert error.message == "/f#web: shared/key.nix is locked by git-crypt"
    assert "--nixos-override-input shared path:DIR" in error.remedy
    other = log("syntax error, unexpected end of file", file=f"{OWN}/plain.nix", line=1)
    assert "at plain.nix:1" in explained(other).message


@pytest.mark.parametrize(
    "words",
    ["getting status of '{}': No such file or directory", "path '{}' does not exist", 'path "{}" does not exist'],
)  # fmt: skip
def test_an_untracked_file_of_the_flake_and_of_an_input(tmp_path: Path, words: str) -> None:
    git = tmp_path / "own tree"
    (git / "hosts").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(git)], check=True)
    (git / "hosts" / "new.nix").write_text("{ }")
    error = explained(log(words.format(f"{OWN}/hosts/new.nix")), f"git+file://{git}")
    assert type(error) is EvalError
    assert (
        "the flake's source has no hosts/new.nix: it is there, and Git does not track it"
        in error.message
    )
    # The remedy is a command that works when it is pasted.
    subprocess.run(shlex.split(error.remedy), check=True)
    tracked = subprocess.run(
        ["git", "-C", str(git), "ls-files"], check=True, capture_output=True, text=True
    )
    assert tracked.stdout.split() == ["hosts/new.nix"]
    shared = explained(log(words.format(f"{INPUT}/hosts/new.nix")), metadata=metadata(str(git)))
    assert "the source of the input shared has no hosts/new.nix: it is there" in shared.message
    assert f"--nixos-override-input shared 'path:{git}'" in shared.remedy
    absent = explained(log(words.format(f"{INPUT}/no.nix")), metadata=metadata(str(git)))
    assert absent.message == "/f#web: the source of the input shared has no no.nix"  # fmt: skip


UNFREE = f"""Package ‘example-unfree-package-1.0’ in {NIXPKGS}/pkgs/hello-unfree/default.nix:19 has an unfree license (‘unfree’), refusing to evaluate.

a) To temporarily allow unfree packages, you can use an environment variable"""  # noqa: RUF001 - nixpkgs' own quotes
INSECURE = f"""Package ‘hello-2.12.1’ in {NIXPKGS}/pkgs/by-name/he/hello/package.nix:41 is marked as insecure, refusing to evaluate.


Known issues:
 - CVE-1
 - CVE-2

You can install it anyway by allowing this package, using the"""  # noqa: RUF001 - nixpkgs' own quotes


def test_packages_that_nixpkgs_refuses() -> None:
    unfree = explained(log(UNFREE))
    assert "it needs example-unfree-package-1.0, whose license is unfree" in unfree.message
    assert 'elem (lib.getName pkg) [ "example-unfree-package" ]' in unfree.remedy
    insecure = explained(log(INSECURE))
    assert (
        "it needs hello-2.12.1, which nixpkgs marks as insecure:\n - CVE-1\n - CVE-2"
        in insecure.message
    )
    assert 'permittedInsecurePackages = [ "hello-2.12.1" ]' in insecure.remedy  # fmt: skip


@pytest.mark.parametrize("words", ["out of memory", "std::bad_alloc"])
def test_too_little_memory(words: str) -> None:
    assert "too little memory" in explained(log(words)).message


TRACE_OF_2_8 = f"""error: undefined variable 'x'

       at {NIXPKGS}/lib/types.nix:9:1:

       … while evaluating the attribute 'b'

       at {OWN}/hosts/web.nix:12:5:

       … while evaluating the attribute 'a'

       at {OWN}/flake.nix:3:5:"""
TRACE_OF_2_26 = f"""error:
       … while evaluating the attribute 'a'
         at {OWN}/flake.nix:3:5:
       … while evaluating the attribute 'b'
         at {OWN}/hosts/web.nix:12:5:
       … while calling the 'map' builtin
         at {NIXPKGS}/lib/types.nix:9:1:

       error: undefined variable 'x'"""


@pytest.mark.parametrize("whole", [TRACE_OF_2_8, TRACE_OF_2_26])
def test_a_failure_is_placed_in_the_users_own_file(whole: str) -> None:
    made = log("undefined variable 'x'", whole=whole, file=f"{NIXPKGS}/lib/types.nix", line=9)
    assert (
        "cannot evaluate this (at hosts/web.nix:12): undefined variable 'x'"
        in explained(made).message
    )


def test_paths_are_told_as_the_user_knows_them() -> None:
    definition = f"""The option `services.nonsense' does not exist. Definition values:
- In `{OWN}/host.nix':
    {{
      enable = true;
    }}
- In `{INPUT}/modules/x.nix': 7"""
    message = explained(log(definition)).message
    assert "- In `host.nix':" in message
    assert "- In `shared/modules/x.nix': 7" in message
    assert "/nix/store" not in message
    places = Places.of(metadata())
    assert places.shorten(f"{OWN} and {NIXPKGS}/a") == f". and {NIXPKGS}/a"


def test_commands_of_a_remedy_have_the_settings_of_the_run() -> None:
    settings = NixSettings(
        override_inputs=(("nixpkgs", "path:/a b"),), nix_options=(("cores", "2"),), impure=True
    )
    words = shlex.split(explained(log("x"), settings=settings).remedy.splitlines()[1])
    assert words == [
        "nix", "--extra-experimental-features", "nix-command flakes", "eval", "--no-write-lock-file",
        "--override-input", "nixpkgs", "path:/a b", "--impure", "--show-trace",
        '/f#nixosConfigurations."web".config.system.build.toplevel.drvPath', "--option", "cores", "2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "directory"),
    [("/srv/x", "/srv/x"), ("path:/srv/x?dir=a", "/srv/x"), ("git+file:///srv/x", "/srv/x"), ("github:a/b", None)],
)  # fmt: skip
def test_directories_of_flakes(url: str, directory: str | None) -> None:
    found = local_directory(FlakeRef(url))
    assert (None if found is None else str(found)) == directory


# Nix 2.34.8 (recorded) points at the files of local repositories where they lie, and speaks of
# those that Git lacks in words of its own.
LOCAL = {"original": {"type": "git", "url": "file:///srv/infra"}, "path": OWN}


def in_repository(below: str, repository: str) -> str:
    return (
        f"Path '{below}' in the repository \"{repository}\" is not tracked by Git.\n\n"
        f'To make it visible to Nix, run:\n\ngit -C "{repository}" add "{below}"'
    )


def test_a_file_that_git_lacks_in_the_words_of_2_34(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts" / "new.nix").write_text("{ }")
    (tmp_path / ".git").mkdir()
    own = {**metadata(), "original": {"type": "git", "url": f"file://{tmp_path}"}}
    error = explained(
        log(in_repository("hosts/new.nix", str(tmp_path))), str(tmp_path), metadata=own
    )
    assert "source has no hosts/new.nix: it is there, and Git does not track it" in error.message
    assert error.remedy == f"git -C {tmp_path} add hosts/new.nix"
    gone = f"Path 'gone.nix' does not exist in Git repository \"{tmp_path}\"."
    assert explained(log(gone), str(tmp_path), metadata=own).message.endswith(
        "the flake's source has no gone.nix"
    )
    shared = explained(
        log(in_repository("hosts/new.nix", str(tmp_path))), metadata=metadata(str(tmp_path))
    )
    assert "the source of the input shared has no hosts/new.nix: it is there" in shared.message
    assert f"--nixos-override-input shared path:{tmp_path}" in shared.remedy


def test_places_in_local_repositories() -> None:
    whole = TRACE_OF_2_26.replace(OWN, "/srv/infra")
    made = log("undefined variable 'x'", whole=whole, file=f"{NIXPKGS}/lib/types.nix:9:1", line=9)
    known = {**metadata(), **LOCAL}
    assert "(at hosts/web.nix:12)" in explained(made, metadata=known).message
    own = log("syntax error", file="/srv/infra/hosts/web.nix:1:2", line=1)
    assert "(at hosts/web.nix:1:2)" in explained(own, metadata=known).message
    shared = log("syntax error", file="/srv/shared/x.nix:1:2", line=1)
    assert "(at shared/x.nix:1:2)" in explained(shared, metadata=known).message
    # The longest directory that a file lies in is the one that it is of.
    inside = Places.of({**known, "original": {"type": "git", "url": "file:///srv"}})
    assert inside.input_of("/srv/shared/x.nix") == ("shared", "x.nix")
    assert inside.input_of("/srv/other/x.nix") == ("", "other/x.nix")
    assert inside.input_of("/srvother/x.nix") is None


def test_a_locked_file_in_a_local_repository(tmp_path: Path) -> None:
    (tmp_path / "key.nix").write_bytes(b"\0GITCRYPT\0x")
    made = log("syntax error, unexpected end of file", file=f"{tmp_path}/key.nix:1:2", line=1)
    error = explained(made, metadata=metadata(str(tmp_path)))
    assert error.message == "/f#web: shared/key.nix is locked by git-crypt"


# Determinate Nix and Nix from 2.35 on evaluate without a copy, and name a source by its URL
# (`setPathDisplay` in libfetchers).
LAZY = "«git+file:///srv/infra?ref=refs/heads/main&rev=28a3b95d»"
LAZY_INPUT = "«github:NixOS/nixpkgs/28a3b95d?narHash=sha256-x»"
LAZY_METADATA = {
    "url": "git+file:///srv/infra?ref=refs/heads/main&rev=28a3b95d",
    "locks": {
        "root": "root",
        "nodes": {
            "root": {"inputs": {"nixpkgs": "n"}},
            "n": {"locked": {"type": "github", "owner": "NixOS", "repo": "nixpkgs"}},
        },
    },
}


def test_sources_that_are_named_by_their_url() -> None:
    whole = TRACE_OF_2_26.replace(OWN, LAZY).replace(NIXPKGS, LAZY_INPUT)
    made = log(
        "undefined variable 'x'", whole=whole, file=f"{LAZY_INPUT}/lib/types.nix:9:1", line=9
    )
    assert "(at hosts/web.nix:12)" in explained(made, metadata=LAZY_METADATA).message
    no_own = log("undefined variable 'x'", file=f"{LAZY_INPUT}/lib/types.nix", line=9)
    assert "(at nixpkgs/lib/types.nix:9)" in explained(no_own, metadata=LAZY_METADATA).message
    missing = explained(log(f'path "{LAZY}/new.nix" does not exist'), metadata=LAZY_METADATA)
    assert "the flake's source has no new.nix" in missing.message
    internal = log("x", file="«nix-internal»/call-flake.nix:56:11", line=56)
    assert "cannot evaluate this: x" in explained(internal, metadata=LAZY_METADATA).message
