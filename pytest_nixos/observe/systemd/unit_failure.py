"""Why services failed, and what mends them, where systemd itself tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.systemd.failed_unit import PLAIN, FailedUnit, UnitFailure
from pytest_nixos.observe.systemd.own_words import failure_in_own_words, may_lack_an_address
from pytest_nixos.observe.systemd.refused_by_kernel import failure_by_kernel
from pytest_nixos.observe.systemd.unit_result import failure_by_result
from pytest_nixos.observe.systemd.unmet_need import (
    lacks_account,
    lacks_directory,
    lacks_group,
    lacks_path,
)

__all__ = ["UnitFailures", "why_failed"]

# What systemd's child says when it cannot become the program (src/core/exec-invoke.c), and what it
# has said of that before.
_STEP = re.compile(r"Failed at step (?P<step>[A-Z_]+) spawning (?P<program>\S+): (?P<error>[^:]+)$")
_NAMESPACE = re.compile(
    r"Failed to set up mount namespacing: (?:/run/systemd/unit-root)?(?P<path>/\S+): No such file"
)
_NO_ENVIRONMENT = "Failed to load environment files: "
_EXITED = re.compile(r"process exited, code=exited, status=(?P<status>\d+)(?:/(?P<step>[A-Z_]+))?")
_RESULT = re.compile(r"Failed with result '(?P<result>[a-z-]+)'")


class UnitFailures(msgspec.Struct, frozen=True):
    """Why each of some units failed.

    :param by_unit: unit to failure.
    """

    by_unit: Mapping[str, UnitFailure]

    @property
    def words(self) -> str:
        """The units in one line, each with its reason where that is known."""
        return ", ".join(
            f"{name} ({failure.why})" if failure.why else name
            for name, failure in self.by_unit.items()
        )

    @property
    def remedy(self) -> str:
        """Module text for all of them, and where to read on about those that nobody can tell of;
        ``""`` for no units.
        """
        texts = [
            failure.remedy or f"# {name}: read why, then correct it: journalctl -b -u {name}"
            for name, failure in self.by_unit.items()
        ]
        return "\n".join(dict.fromkeys(texts))  # two may want the same account


def why_failed(
    journals: Mapping[str, Sequence[str]],
    host: HostConfig,
    ask_listeners: Callable[[], Mapping[int, Sequence[str]]] | None = None,
) -> UnitFailures:
    """Return why units failed, from their journals and from what is declared of them.

    :param journals: unit, with its suffix, to lines of its journal, systemd's own among them,
        oldest first.
    :param ask_listeners: asks the machine for the ports on which something listens, and which units
        do; called where a unit says that its address is taken.
    """
    taken = any(may_lack_an_address(said) for said in journals.values())
    listeners = ask_listeners() if taken and ask_listeners is not None else {}
    failed = {name: FailedUnit.of(name, host, said, listeners) for name, said in journals.items()}
    return UnitFailures({name: _why(unit) for name, unit in failed.items()})


def _why(failed: FailedUnit) -> UnitFailure:
    if refused := failure_by_kernel(failed):
        return refused
    if step := failed.told(_STEP):
        if known := _BY_STEP.get(step["step"]):
            return known(failed, step["program"])
        return UnitFailure(why=f"systemd cannot set it up ({step['step']}): {step['error']}")
    exited = failed.told(_EXITED)
    # systemd names so only what its child ends with, systemd.exec(5), "Process exit codes".
    if exited and exited["step"] in _BY_STEP:
        return _BY_STEP[exited["step"]](failed, "")
    if any(_NO_ENVIRONMENT in line for line in failed.said):
        return _environment(failed)
    told = failed.told(_RESULT)
    result = told["result"] if told else "exit-code"
    if result in ("exit-code", "start-limit-hit") and exited:
        return failure_in_own_words(failed, exited["status"])
    return failure_by_result(failed, result)


def _namespace(failed: FailedUnit, _program: str) -> UnitFailure:
    missing = failed.told(_NAMESPACE)
    if not missing:
        return UnitFailure(why="systemd cannot make its view of the file system")
    return lacks_path(failed, missing["path"])


def _program(failed: FailedUnit, program: str) -> UnitFailure:
    if not program:
        return UnitFailure(why="its program cannot be started")
    if program.startswith("/nix/store/") and PLAIN.fullmatch(program):
        folder = program.rpartition("/")[0]
        return UnitFailure(
            why=f"its program {program} cannot be started",
            remedy=f"# {failed.name}: see which programs its package has, ls {folder}, and correct {failed.config}.ExecStart.",
        )
    return UnitFailure(
        why=f"its program {program} cannot be started",
        remedy=f"# {failed.name} starts {program}: write it by its package, as in\n"
        '#   ExecStart = "${pkgs.hello}/bin/hello";',
    )


def _credentials(failed: FailedUnit, _program: str) -> UnitFailure:
    named = failed.words("LoadCredential", "LoadCredentialEncrypted").split()
    paths = [path for word in named if (path := word.partition(":")[2]).startswith("/")]
    if not paths:
        return UnitFailure(why="one of its credentials cannot be read")
    return UnitFailure(
        why=f"a credential of its LoadCredential= cannot be read: {' or '.join(paths)}",
        remedy=f"# Before {failed.name} starts, something has to make {' and '.join(paths)}: correct the path,\n"
        "# or declare the secret (sops.secrets, age.secrets).",
    )


def _pam(failed: FailedUnit, _program: str) -> UnitFailure:
    name = failed.words("PAMName").strip()
    if not PLAIN.fullmatch(name):
        return UnitFailure(why="PAM refuses it a session")
    return UnitFailure(
        why=f"PAM refuses it a session by the service {name} of its PAMName=",
        remedy=f"# PAM takes a service that nothing declares for /etc/pam.d/other, which refuses everybody:\n"
        f'security.pam.services."{name}" = {{ }};',
    )


_BY_STEP: Mapping[str, Callable[[FailedUnit, str], UnitFailure]] = {
    "CHDIR": lambda failed, _: lacks_directory(failed),
    "CREDENTIALS": _credentials,
    "EXEC": _program,
    "GROUP": lambda failed, _: lacks_group(failed),
    "NAMESPACE": _namespace,
    "PAM": _pam,
    "USER": lambda failed, _: lacks_account(failed),
}


def _environment(failed: FailedUnit) -> UnitFailure:
    values = failed.unit.setting("Service", "EnvironmentFile") if failed.unit is not None else ()
    needed = [path for path in values if not path.startswith("-")]
    if len(needed) != 1:
        return UnitFailure(why="a file of its EnvironmentFile= is not there")
    return UnitFailure(
        why=f"its EnvironmentFile {needed[0]} is not there",
        remedy=f"# Have {needed[0]} made before it starts, or let it do without:\n"
        f"{failed.config}.EnvironmentFile = lib.mkForce {json.dumps(f'-{needed[0]}')};",
    )
