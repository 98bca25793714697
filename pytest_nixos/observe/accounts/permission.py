"""What an account may run as another: the same for sudo and for doas."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pytest_nixos.observe.accounts.command_pattern import as_good_as_a_shell

__all__ = ["AccountRights", "Permission", "root_outside_wheel", "without_password"]


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """One command that an account may run.

    :param command: as the rules have it; ``ALL`` for any.
    :param run_as: whom it is run as; ``ALL`` for anybody, after ``!`` who is left out again. The
        superuser is ``root`` here, whatever a rule calls it.
    :param asks: whether for the password.
    """

    command: str
    run_as: tuple[str, ...]
    asks: bool

    @property
    def as_root(self) -> bool:
        """Whether it can be run as root."""
        found = False
        for who in self.run_as:
            if who.lstrip("!") in ("ALL", "root"):
                found = not who.startswith("!")
        return found

    @property
    def is_all_of_root(self) -> bool:
        """Whether it is as good as a root shell."""
        return self.as_root and as_good_as_a_shell(self.command)

    @property
    def told(self) -> str:
        """The command, and as whom if not as root."""
        return self.command if self.as_root else f"{self.command} as {', '.join(self.run_as)}"


class AccountRights(msgspec.Struct, frozen=True, kw_only=True):
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
        if (commands := [p.told for p in r.permissions if not p.asks])
    ]


def root_outside_wheel(rights: Sequence[AccountRights]) -> list[str]:
    """List the accounts that may do everything and are no administrators."""
    return [
        f"{r.account}: {', '.join(commands)}"
        for r in rights
        if not r.in_wheel and (commands := [p.told for p in r.permissions if p.is_all_of_root])
    ]
