"""Decrypted secrets as they lie in the guest, and what the host declares of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

import msgspec

from pytest_nixos import HostConfig, Machine, Secret

__all__ = ["SecretFile", "declared", "differences", "generation_of", "look", "subject_name"]

_LOOK = 'for path in {paths}; do echo "$(stat -L -c \'%a %U %u %G %g %Y\' "$path" 2>/dev/null || echo -) $(readlink -f "$path") $path"; done'
_GENERATION = re.compile(r"\.d/(\d+)/")
_OCTAL = re.compile(r"0?[0-7]{3,4}")


class SecretFile(msgspec.Struct, frozen=True, kw_only=True):
    """What lies behind one path.

    :param users: name and number of the owner; `groups` alike.
    :param changed_s: when its content was written, seconds since 1970.
    :param real_path: where it lies itself.
    """

    mode: int
    users: tuple[str, str]
    groups: tuple[str, str]
    changed_s: int
    real_path: str


def declared(host: HostConfig) -> tuple[Secret, ...]:
    """Return the secrets and the templates made of them."""
    return (*host.secrets.secrets, *host.secrets.templates)


def subject_name(secret: Secret) -> str:
    """Name a secret as the subject of a finding: by its file, as whoever misses the file does."""
    return secret.path


def look(machine: Machine, secrets: Iterable[Secret]) -> Mapping[str, SecretFile]:
    """Return what lies at the paths of secrets; what is missing is left out."""
    paths = [secret.path for secret in secrets]
    output = machine.run(_LOOK.format(paths=" ".join(map(shlex.quote, paths)))).stdout_text
    found = {}
    for path, line in zip(paths, output.splitlines(), strict=True):
        words = line.split()
        if words[0] != "-":
            mode, user, uid, group, gid, changed, real = words[:7]
            found[path] = SecretFile(
                mode=int(mode, 8),
                users=(user, uid),
                groups=(group, gid),
                changed_s=int(changed),
                real_path=real,
            )
    return found


def generation_of(file: SecretFile) -> int | None:
    """Return which decryption since the boot a file is of, ``None`` where its path does not say."""
    match = _GENERATION.search(file.real_path)
    return int(match[1]) if match else None


def differences(secret: Secret, file: SecretFile) -> dict[str, tuple[str, str]]:
    """Return what is other than declared: name to (declared, real)."""
    found = {}
    if _OCTAL.fullmatch(secret.mode) and int(secret.mode, 8) != file.mode:
        found["mode"] = (secret.mode, f"{file.mode:04o}")
    for name, wanted, real in (
        ("owner", secret.owner, file.users),
        ("group", secret.group, file.groups),
    ):
        # Before there are users, files are root's.
        expected = "0" if secret.needed_for_users else wanted or "0"
        if expected not in real:
            found[name] = (expected, real[0])
    return found
