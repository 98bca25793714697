"""What a unit's declaration has to mean for its running process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_nixos import observe

from .directives import word_of

__all__ = ["violations"]

Facts = observe.ProcessFacts
Declared = Mapping[str, tuple[str, ...]]

# ProtectSystem= and ProtectHome= from weak to strong.
_SYSTEM = ("no", "yes", "full", "strict")
_HOME = ("no", "read-only", "tmpfs", "yes")


def violations(declared: Declared, facts: Facts, *, writable: tuple[str, ...]) -> list[str]:
    """Name the directives that the process does not live under.

    :param writable: paths that the unit declares writable; they may undo part of
        ``ProtectSystem=strict``.
    """
    found = [
        directive
        for directive, holds in _SIMPLE.items()
        if _is_on(declared, directive) and not holds(facts)
    ]
    if declared.get("SystemCallFilter") and facts.seccomp is not observe.SeccompMode.FILTER:
        found.append("SystemCallFilter")
    found += _capability_violations(declared, facts)
    found += _path_violations(declared, facts, writable)
    return found


_SIMPLE: Mapping[str, Callable[[Facts], bool]] = {
    "NoNewPrivileges": lambda facts: facts.no_new_privileges is not False,
    "PrivateTmp": lambda facts: facts.private_tmp,
    "PrivateDevices": lambda facts: facts.private_devices,
    "PrivateNetwork": lambda facts: "net" in facts.private_namespaces,
    "PrivateUsers": lambda facts: "user" in facts.private_namespaces,
    "DynamicUser": lambda facts: not facts.runs_as_root,
    "ProtectKernelTunables": lambda facts: facts.protect_kernel_tunables,
    "ProtectKernelModules": lambda facts: facts.protect_kernel_modules,
    "ProtectControlGroups": lambda facts: facts.protect_control_groups,
}


def _is_on(declared: Declared, directive: str) -> bool:
    return word_of(declared.get(directive, ())) == "yes"


def _capability_violations(declared: Declared, facts: Facts) -> list[str]:
    if "CapabilityBoundingSet" not in declared:
        return []
    words = [w.lower() for value in declared["CapabilityBoundingSet"] for w in value.split()]
    if any(word.startswith("~") for word in words):
        denied = {word.removeprefix("~").removeprefix("cap_") for word in words}
        kept = facts.capabilities["bounding"] & denied
    else:
        kept = facts.capabilities["bounding"] - {word.removeprefix("cap_") for word in words}
    return ["CapabilityBoundingSet"] if kept else []


def _path_violations(declared: Declared, facts: Facts, writable: tuple[str, ...]) -> list[str]:
    found = []
    system = _strength(declared.get("ProtectSystem", ()), _SYSTEM)
    undone = any(path in ("/", "/etc", "/usr", "/var", "/boot") for path in writable)
    if not undone and _SYSTEM.index(facts.protect_system.value) < system:
        found.append("ProtectSystem")
    if _HOME.index(facts.protect_home.value) < _strength(declared.get("ProtectHome", ()), _HOME):
        found.append("ProtectHome")
    return found


def _strength(values: tuple[str, ...], scale: tuple[str, ...]) -> int:
    word = word_of(values)
    return scale.index(word) if word in scale else 0
