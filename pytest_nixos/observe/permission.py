"""What an account may run as another: the same for sudo and for doas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["AccountRights", "Permission", "root_outside_wheel", "without_password"]

#: Programs that are all of root to whoever may start them without given arguments.
_SHELLS = re.compile(r"(?:.*/)?(?:ba|z|fi|da|k|c|tc)?sh|.*/(?:su|env|nixos-rebuild|systemd-run)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One command that an account may run.

    :param command: as the rules have it; ``ALL`` for any.
    :param run_as: whom it is run as; ``ALL`` for anybody.
    :param asks: whether for the password.
    """

    command: str
    run_as: tuple[str, ...]
    asks: bool

    @property
    def as_root(self) -> bool:
        """Whether it can be run as root."""
        return bool({"ALL", "root", "#0"} & set(self.run_as))

    @property
    def is_all_of_root(self) -> bool:
        """Whether it is as good as a root shell."""
        any_arguments = self.command == "ALL" or _SHELLS.fullmatch(self.command) is not None
        return self.as_root and any_arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRights:
    """What one account may do.

    :param in_wheel: whether the host calls it an administrator.
    """

    account: str
    in_wheel: bool
    permissions: tuple[Permission, ...]


def without_password(rights: Sequence[AccountRights]) -> list[str]:
    """List the accounts that may run something unasked, each with what."""
    return [
        f"{r.account}: {', '.join(commands)}"
        for r in rights
        if (commands := [p.command for p in r.permissions if not p.asks])
    ]


def root_outside_wheel(rights: Sequence[AccountRights]) -> list[str]:
    """List the accounts that may do everything and are no administrators."""
    return [
        f"{r.account}: {', '.join(commands)}"
        for r in rights
        if not r.in_wheel and (commands := [p.command for p in r.permissions if p.is_all_of_root])
    ]
