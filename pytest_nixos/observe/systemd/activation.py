"""The activation of this boot: which of its snippets failed, and what they said.

A snippet that fails does not stop the boot: NixOS prints ``Activation script snippet 'NAME' failed
(STATUS)`` and goes on (nixos/modules/system/activation/activation-script.nix). Where the text goes
depends on who runs the second stage (nixos/modules/system/boot/stage-2-init.sh): to the kernel's
log as ``stage-2-init`` (any user can log under that name, but not by way of the kernel), without
``/dev/kmsg`` to ``/run/log/stage-2-init.log``, and with systemd in the first stage to the journal
of ``initrd-nixos-activation.service``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import whole

__all__ = [
    "ActivationFailure",
    "BootActivation",
    "boot_activation",
    "is_of_nspawn",
    "own_failures",
    "parse_activation",
]

_MAX_BYTES = 131072
_READ = rf"""
if [ -s /run/log/stage-2-init.log ]; then
  tail -c {_MAX_BYTES} /run/log/stage-2-init.log
else
  journalctl --boot --no-pager --quiet --output=cat --identifier=stage-2-init _TRANSPORT=kernel | tail -c {_MAX_BYTES}
  journalctl --boot --no-pager --quiet --output=cat --unit=initrd-nixos-activation.service | tail -c {_MAX_BYTES}
fi
"""
_FAILED = re.compile(r"Activation script snippet '(?P<name>[^']+)' failed \((?P<status>\d+)\)")
_STARTED = re.compile(r"running activation script|setting up /etc")
_REFUSED = re.compile(r"mount: /(?:dev|dev/pts|dev/shm|proc|run|run/keys|sys): permission denied")
_SAID_LINES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationFailure:
    """One snippet that failed.

    :param said: the last lines before the failure, oldest first; a snippet that ran before may have
        said some of them.
    """

    snippet: str
    status: int
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BootActivation:
    """The activation of this boot.

    :param told: whether there is a log of it; without one, no failure means nothing.
    """

    told: bool
    failures: tuple[ActivationFailure, ...]


def is_of_nspawn(failure: ActivationFailure) -> bool:
    """Whether a snippet failed only since systemd-nspawn had made the mounts that it changes.

    ``specialfs`` of NixOS mounts ``/dev``, ``/run`` and others anew with options of its own
    (nixos/modules/system/activation/activation-script.nix). The root of a container with user ids
    of its own may not change a mount that came from outside (mount_namespaces(7)).
    """
    mounts = [line for line in failure.said if line.startswith("mount: ")]
    return failure.snippet == "specialfs" and bool(mounts) and all(map(_REFUSED.match, mounts))


def own_failures(
    failures: Iterable[ActivationFailure], *, place: str
) -> tuple[ActivationFailure, ...]:
    """Return the failures that are the host's own; see :func:`is_of_nspawn`.

    :param place: where the machine runs, ``container`` among others.
    """
    return tuple(f for f in failures if not (place == "container" and is_of_nspawn(f)))


def boot_activation(*, name: str = "boot-activation") -> Probe[BootActivation]:
    """Ask for what the activation of this boot said."""
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> BootActivation:
    return parse_activation(output.text)


def parse_activation(text: str) -> BootActivation:
    """Read a log of the second stage, from the guest or from its console."""
    lines = [line.removeprefix("stage-2-init: ").rstrip() for line in text.split("\n")]
    failures = []
    said: list[str] = []
    told = False
    for line in lines:
        told = told or bool(_STARTED.search(line))
        if found := _FAILED.search(line):
            failures.append(
                ActivationFailure(
                    snippet=found["name"],
                    status=whole(found["status"]) or 1,
                    said=tuple(said[-_SAID_LINES:]),
                )
            )
            said = []
        elif line:
            said.append(line)
    return BootActivation(told=told or bool(failures), failures=tuple(failures))
