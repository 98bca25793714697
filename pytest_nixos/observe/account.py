"""Users and groups; of a password only its kind ever leaves the guest."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.sections import split_sections

__all__ = ["Account", "Accounts", "PasswordState", "local_users"]

# The password field is judged in the guest: what is printed is its first characters' meaning, never the field.
_READ = r"""
printf '=passwd\n%s\n=group\n%s\n=shadow\n' "$(</etc/passwd)" "$(</etc/group)"
while IFS=: read -r name field changed minimum maximum warning inactive expires rest; do
  case $field in
    '') kind=none;; '!'*|'*'*) kind=locked;;
    \$*) scheme=${field#\$}; kind=hash=${scheme%%\$*};; *) kind=hash=des;;
  esac
  printf '%s:%s:%s:%s\n' "$name" "$kind" "$maximum" "$expires"
done </etc/shadow
"""


class PasswordState(enum.Enum):
    """What a password field is."""

    LOCKED = "locked"
    NONE = "none"
    SET = "set"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One user.

    :param password: :attr:`PasswordState.NONE` means that no password is asked for.
    :param scheme: hash scheme in crypt(5)'s letters (``y``, ``6``, ``2b``; ``des``), ``""`` if there is no hash.
    :param password_max_days: ``None`` if a password never has to be changed.
    :param expires_day: day since 1970 on which the account is locked, ``None`` if never.
    """

    name: str
    uid: int
    gid: int
    comment: str
    home: str
    shell: str
    password: PasswordState
    scheme: str
    password_max_days: int | None
    expires_day: int | None

    @property
    def can_log_in(self) -> bool:
        """Whether its shell is one that starts."""
        return not self.shell.endswith(("/nologin", "/false"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """All local users, and groups with their members (primary groups not counted)."""

    users: Mapping[str, Account]
    groups: Mapping[str, tuple[str, ...]]
    group_ids: Mapping[str, int]


def local_users(*, name: str = "account") -> Probe[Accounts]:
    """Ask for all local users and groups."""
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> Accounts:
    sections = split_sections(output.text)
    shadow = {f[0]: f for f in (line.split(":") for line in sections.get("shadow", ()))}
    users = (_account(line.split(":"), shadow) for line in sections.get("passwd", ()))
    groups = [g for g in (line.split(":") for line in sections.get("group", ())) if len(g) >= 4]
    return Accounts(
        users={user.name: user for user in users if user is not None},
        groups={g[0]: tuple(member for member in g[3].split(",") if member) for g in groups},
        group_ids={g[0]: int(g[2]) for g in groups if g[2].isdecimal()},
    )


def _account(fields: list[str], shadow: Mapping[str, list[str]]) -> Account | None:
    if len(fields) < 7 or not (fields[2].isdecimal() and fields[3].isdecimal()):
        return None
    _, kind, maximum, expires, *_ = [*shadow.get(fields[0], []), "", "", "", ""]
    word, _, scheme = kind.partition("=")
    states = {"locked": PasswordState.LOCKED, "none": PasswordState.NONE, "hash": PasswordState.SET}
    return Account(
        name=fields[0],
        uid=int(fields[2]),
        gid=int(fields[3]),
        comment=fields[4],
        home=fields[5],
        shell=fields[6],
        password=states.get(word, PasswordState.UNKNOWN),
        scheme=scheme,
        password_max_days=_days(maximum),
        expires_day=_days(expires),
    )


def _days(text: str) -> int | None:
    # 99999 days is shadow(5)'s "never".
    return int(text) if text.isdecimal() and int(text) < 99999 else None
