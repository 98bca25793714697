"""The words of Nix 2.8 and 2.26 (recorded), and of later releases (from their sources and
issues).
"""

import json
from collections.abc import Sequence

import pytest

from pytest_nixos.errors import BuildError, EvalError, FlakeError
from pytest_nixos.nix.command.log import NixLog
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.failure.absent import no_such_host
from pytest_nixos.nix.failure.build import build_failure
from pytest_nixos.nix.failure.derivation import said_last
from pytest_nixos.nix.failure.evaluation import (
    EvalInterrupted,
    NoHosts,
    evaluation_failure,
    flake_failure,
    none_evaluates,
)

FLAKE = FlakeRef("/f")
HOST = HostRef(FLAKE, "web")
HASH = "k4ndzxvgpsgr1zcwzdvvsy6qgwpdnvn5"
DRV = f"/nix/store/{HASH}-web.drv"
DEP = "/nix/store/rhkcvhrb0p3ccv8g3na7a5zsl2vj5hmn-dep.drv"


def log(*errors: str, plain: Sequence[str] = ()) -> NixLog:
    made = NixLog()
    for text in errors:
        made.feed(
            "@nix "
            + json.dumps({"action": "msg", "level": 0, "msg": "error: " + text, "raw_msg": text})
        )
    for line in plain:
        made.feed(line)
    return made


@pytest.mark.parametrize(
    ("words", "says", "remedy"),
    [
        ("could not find a flake.nix file", "no flake.nix there", "name the directory"),
        (
            f"getting status of '/nix/store/{HASH}-source/flake.nix': No such file or directory",
            "Git does not track flake.nix",
            "git add flake.nix",
        ),
        (
            f"path '/nix/store/{HASH}-source/flake.nix' does not exist",
            "Git does not track flake.nix",
            "git add flake.nix",
        ),
        (
            "Path '/f/flake.nix' in the repository \"/f\" is not tracked by Git.\n\nTo make it",
            "Git does not track flake.nix",
            "git add flake.nix",
        ),
        ("getting status of '/f': No such file or directory", "no such file", "check the path"),
        ("path '/f' does not exist", "no such file", "check the path"),
        (
            "cannot find flake 'flake:f' in the flake registries",
            "no entry of the flake registry",
            "./DIR",
        ),
        (
            "unable to download 'https://api.github.com/x': Couldn't resolve host name (6)",
            "cannot be fetched",
            "--nixos-override-input",
        ),
        (
            "unable to download 'https://x': HTTP error 404 ('')",
            "cannot be fetched",
            "--nixos-override-input",
        ),
        (
            "resolving Git reference 'master': revspec 'master' not found",
            "Git repository",
            "check the URL",
        ),
        ("'/f x' is not a valid URL", "does not take such a flake ref", "plain letters"),
        ("writing to file: No space left on device", "the disk is full", "nix-collect-garbage"),
        (
            "error: failed to extract archive (Write failed)",
            "the disk is full",
            "temporary directory",
        ),
        (
            "cannot connect to socket at '/nix/var/nix/daemon-socket/socket': Connection refused",
            "daemon does not answer",
            "systemctl start nix-daemon",
        ),
        (
            "getting status of /nix/var/nix/daemon-socket/socket: Permission denied",
            "daemon does not serve this user",
            "nix-users",
        ),
        (
            "something else",
            "Nix cannot read this flake: something else",
            "flake metadata --no-write-lock-file /f",
        ),
    ],
)
def test_flake_failures(words: str, says: str, remedy: str) -> None:
    error = flake_failure(FLAKE, log(words), 1)
    assert isinstance(error, FlakeError)
    assert error.message.startswith("/f: ")
    assert says in error.message
    assert remedy in error.remedy
    assert words.splitlines()[0] in error.detail


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ('path "/f" does not exist', "no such file"),
        (f'path "/nix/store/{HASH}-source/flake.nix" does not exist', "Git does not track"),
        ('path "/f" is not part of a flake (neither it nor its parent', "no flake.nix there"),
        ('cannot find flake "flake:f" in the flake registries', "no entry of the flake registry"),
        ('resolving Git reference "master": revspec "master" not found', "Git repository"),
        ('"/f x" is not a valid URL', "does not take such a flake ref"),
        (
            'could not connect to any lix socket (tried "/nix/var/nix/daemon-socket/socket")',
            "daemon does not answer",
        ),
    ],
)
def test_newer_releases_and_lix_say_it_otherwise(words: str, says: str) -> None:
    """Nix 2.34 quotes with ``"``; Lix has words of its own."""
    assert says in flake_failure(FLAKE, log(words), 1).message


def test_git_speaks_outside_the_log_format() -> None:
    made = log(
        "program 'git' failed with exit code 128",
        plain=[
            "fatal: '/x' does not appear to be a git repository",
            "fatal: Could not read from remote repository.",
        ],
    )
    assert "this Git repository" in flake_failure(FLAKE, made, 1).message


def test_nix_that_says_nothing() -> None:
    assert "exit status 3 without a message" in flake_failure(FLAKE, log(), 3).message
    assert "ended by SIGSEGV" in flake_failure(FLAKE, log(), -11).message
    assert "last words" in flake_failure(FLAKE, log(plain=["first", "last words", " "]), 1).message


@pytest.mark.parametrize(
    ("words", "kind", "says", "remedy"),
    [
        (
            (
                "flake 'path:/f' does not provide attribute 'packages.x86_64-linux.nixosConfigurations',"
                " 'legacyPackages.x86_64-linux.nixosConfigurations' or 'nixosConfigurations'"
            ),
            NoHosts,
            "/f: this flake has no nixosConfigurations",
            "nixosSystem { ... }",
        ),
        (
            "access to absolute path '/etc/passwd' is forbidden in pure eval mode (use '--impure' to override)",
            EvalError,
            "access to absolute path '/etc/passwd'",
            "--nixos-impure",
        ),
        (
            "access to absolute path '/etc' is forbidden in pure evaluation mode (use '--impure' to override)",
            EvalError,
            "access to absolute path '/etc'",
            "--nixos-impure",
        ),
        (
            f"getting status of '/nix/store/{HASH}-source/hosts/x.nix': No such file or directory",
            EvalError,
            "the flake's source has no hosts/x.nix",
            "git add",
        ),
        (
            "unable to download 'https://x': Connection timed out",
            FlakeError,
            "cannot be fetched",
            "--nixos-override-input",
        ),
        (
            "\nFailed assertions:\n- ports must be even",
            EvalError,
            "/f#web: Nix cannot evaluate this: Failed assertions:\n- ports must be even",
            'eval --no-write-lock-file --show-trace \'/f#nixosConfigurations."web".config',
        ),
    ],
)
def test_evaluation_failures(words: str, kind: type[Exception], says: str, remedy: str) -> None:
    error = evaluation_failure(HOST, log(words), 1)
    assert type(error) is kind
    assert says in error.message
    assert remedy in error.remedy


def test_the_flake_as_a_whole_is_named_without_a_host() -> None:
    error = evaluation_failure(HostRef(FLAKE, ""), log("undefined variable 'x'"), 1)
    assert error.message == "/f: Nix cannot evaluate this: undefined variable 'x'"
    assert "--show-trace '/f#nixosConfigurations' --apply builtins.attrNames" in error.remedy


def building(derivation: str, *lines: str) -> NixLog:
    made = NixLog()
    for event in (
        {"action": "start", "id": 1, "type": 105, "fields": [derivation]},
        *({"action": "result", "id": 1, "type": 101, "fields": [line]} for line in lines),
        {"action": "stop", "id": 1},
    ):
        made.feed(f"@nix {json.dumps(event)}")
    return made


def with_errors(made: NixLog, *errors: str) -> NixLog:
    made.errors += log(*errors).errors
    return made


def test_a_host_that_imports_from_a_derivation_is_told_the_one_that_failed() -> None:
    made = with_errors(
        building(DEP, "one", "two", "error: expected a theme"),
        f"builder for '{DEP}' failed with exit code 1",
        f"1 dependencies of derivation '{DRV}' failed to build",
    )
    error = evaluation_failure(HOST, made, 1)
    assert type(error) is EvalError
    assert f"for that dep ({DEP}) does not build: failed with exit code 1" in error.message
    assert error.message.endswith("\n  | one\n  | two\n  | error: expected a theme")
    assert error.remedy.startswith("read the whole log: nix ")
    assert error.remedy.endswith(f" log {DEP}")


NOT_DOWNLOADED = (
    "error: unable to download 'https://example.org/dep.tar.gz': Couldn't resolve host name (6)",
    "       error: unable to download 'https://example.org/dep.tar.gz': Could not resolve host",
    "error: cannot download dep.tar.gz from any mirror",
    "fatal: unable to access 'https://example.org/dep.git/': Could not resolve host: example.org",
)


@pytest.mark.parametrize("line", NOT_DOWNLOADED)
def test_what_cannot_be_downloaded_is_no_mistake_of_the_build(line: str) -> None:
    words = f"builder for '{DEP}' failed with exit code 1"
    for error in (
        evaluation_failure(HOST, with_errors(building(DEP, line), words), 1),
        failure(with_errors(building(DEP, line), words)),
    ):
        assert line in str(error)
        assert "this machine has to reach that address" in error.remedy
        assert "extra-substituters" in error.remedy
        assert error.remedy.endswith(f" log {DEP}")


def test_a_test_of_a_package_that_speaks_of_downloads_is_its_own_failure() -> None:
    words = f"builder for '{DEP}' failed with exit code 1"
    made = with_errors(building(DEP, "FAIL: unable to download 'x' when offline"), words)
    assert failure(made).remedy.startswith("read the whole log: ")


def test_a_host_that_imports_what_another_system_builds() -> None:
    words = f"a 'aarch64-linux' with features {{}} is required to build '{DRV}', but I am a 'x86_64-linux'"
    error = evaluation_failure(HOST, log(words), 1)
    assert "must be built on aarch64-linux" in error.message
    assert "remote builder" in error.remedy


def test_a_killed_evaluation() -> None:
    error = evaluation_failure(HOST, log(), -9)
    assert isinstance(error, EvalInterrupted)
    assert "memory" in error.remedy


def test_a_nix_that_crashed_is_not_told_to_be_out_of_memory() -> None:
    error = evaluation_failure(HOST, log(), -11)
    assert isinstance(error, EvalInterrupted)
    assert "SIGSEGV" in error.message
    assert "newer Nix" in error.remedy
    assert "more memory" not in error.remedy


def failure(made: NixLog, exit_status: int = 1) -> BuildError:
    return build_failure(DRV, made, exit_status, read_log=lambda drv: [f"log of {drv}"])


@pytest.mark.parametrize(
    "errors",
    [
        (
            f"builder for '{DEP}' failed with exit code 3;\nlast 1 log lines:\n> x",
            f"1 dependencies of derivation '{DRV}' failed to build",
        ),
        (
            f"1 dependencies of derivation '{DRV}' failed to build",
            f"builder for '{DEP}' failed with exit code 3",
        ),
        (
            f"Cannot build '{DRV}'.\nReason: 1 dependency failed.",
            f"Cannot build '{DEP}'.\nReason: builder failed with exit code 3.\nOutput paths:\n  /x",
        ),
    ],
)
def test_the_first_derivation_that_failed_is_the_one_named(errors: tuple[str, ...]) -> None:
    error = failure(log(*errors))
    assert error.derivation == DEP
    assert error.message.startswith(f"dep failed to build ({DEP}): ")
    assert error.message.endswith("failed with exit code 3")
    assert error.log_tail == (f"log of {DEP}",)


def test_the_log_that_was_seen_comes_before_the_store() -> None:
    made = NixLog()
    made.feed("@nix " + json.dumps({"action": "start", "id": 1, "type": 105, "fields": [DEP]}))
    for number in range(100):
        made.feed(
            "@nix "
            + json.dumps({"action": "result", "id": 1, "type": 101, "fields": [f"l{number}"]})
        )
    made.feed("@nix " + json.dumps({"action": "stop", "id": 1}))
    made.feed(
        "@nix "
        + json.dumps(
            {
                "action": "msg",
                "level": 0,
                "raw_msg": f"builder for '{DEP}' failed due to signal 9 (Killed)",
            }
        )
    )
    error = failure(made)
    assert error.log_tail[-1] == "l99"
    told = build_failure(
        DRV, log(f"builder for '{DEP}' failed"), 1, read_log=lambda _: ["error: no"]
    )
    assert told.message.endswith("; error: no")
    assert len(error.log_tail) == 15
    assert error.message.endswith("failed due to signal 9 (Killed)")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            ("Validating", "error: unknown experimental feature 'flake'", "note: x"),
            "error: unknown experimental feature 'flake'",
        ),
        (("nginx: [emerg] unknown directive", "failed"), "nginx: [emerg] unknown directive"),
        (("TypeError: no", "ValueError: bad"), "ValueError: bad"),
        (("0 errors", "-Werror=x", "done"), ""),
        ((), ""),
    ],
)
def test_what_a_build_says_of_its_end(said: tuple[str, ...], told: str) -> None:
    assert said_last(said) == told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            f"a 'aarch64-linux' with features {{}} is required to build '{DRV}', but I am a 'x86_64-linux'",
            "must be built on aarch64-linux",
        ),
        ("writing to file: No space left on device", "the disk is full"),
        ("unexpected EOF reading a line", "could not build it: unexpected EOF"),
        (
            f"hash mismatch in fixed-output derivation '{DEP}':\n  specified: a",
            "hash mismatch in fixed-output",
        ),
    ],
)
def test_other_build_failures(words: str, says: str) -> None:
    assert says in failure(log(words)).message


def test_a_killed_build() -> None:
    assert "ended by SIGKILL" in failure(log(), -9).message


def test_known_hosts_are_cut_and_the_nearest_is_meant() -> None:
    many = [f"host{n}" for n in range(30)]
    assert "host19 and 10 more" in no_such_host(HOST, many).message
    assert no_such_host(HOST, ["wbe", "x"]).remedy == "did you mean /f#wbe?"
    assert no_such_host(HOST, ["x"]).remedy == "choose one of them: /f#x"
    empty = no_such_host(HOST, [])
    assert "are empty" in empty.message
    assert "nixosSystem { ... }" in empty.remedy


def test_where_no_host_evaluates_each_reason_is_told_once() -> None:
    def failure(host: str, reason: str) -> EvalError:
        return EvalError(f"/f#{host}: {reason}", remedy=f"mend {host}", detail=f"trace of {host}")

    private = [failure(f"h{number}", "the input secret cannot be fetched") for number in range(20)]
    assert none_evaluates(private) is private[0]
    error = none_evaluates([*private, failure("typo", "no option called sshh")])
    assert str(error).count("cannot be fetched") == 1
    assert "/f#h0: the input secret cannot be fetched\n  remedy: mend h0" in error.message
    assert "/f#typo: no option called sshh\n  remedy: mend typo" in error.message
    assert "--nixos-flake REF#HOST" in error.remedy
    assert error.detail == "trace of h0\ntrace of typo"
    many = none_evaluates([failure("a", f"reason {number}") for number in range(9)])
    assert many.message.endswith("\nand 4 more")
