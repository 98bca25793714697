"""Lists of options that name accounts and groups: limits, who may use Nix, members of groups, whose jobs cron
runs, who is logged in by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pytest_nixos import HostConfig, observe

from .rules import Rule

__all__ = ["named_in_options"]

Json = Any

_LIMITS = "security.pam.loginLimits"
_NIX = ("nix.settings.trusted-users", "nix.settings.allowed-users")
_MEMBERS = "users.groups"
_CRON = "services.cron.systemCronJobs"
_AUTOLOGIN = ("services.getty.autologinUser", "services.displayManager.autoLogin.user")
_NAME = re.compile(r"[A-Za-z_][\w.-]*\$?")


def named_in_options(host: HostConfig) -> Iterator[tuple[str, Rule]]:
    """Yield each option that names accounts or groups, with those that it names. Numbers and patterns are
    left out.
    """
    # An account that is switched off stays a member of its groups in the configuration.
    off = {user.name for user in host.users.values() if not user.enabled}
    for option, words in _lists(host):
        texts = [word for word in words if isinstance(word, str) and word not in off]
        users = tuple(word for word in texts if _NAME.fullmatch(word))
        groups = tuple(word[1:] for word in texts if word[:1] in "@%" and _NAME.fullmatch(word[1:]))
        if users or groups:
            yield option, Rule(users=users, groups=groups, programs=())


def _lists(host: HostConfig) -> Iterator[tuple[str, Iterable[Json]]]:
    limits = host.option(_LIMITS).value or ()
    yield _LIMITS, [one.get("domain") for one in limits if isinstance(one, dict)]
    for option in _NIX:
        value = host.option(option).value or ()
        yield option, value.split() if isinstance(value, str) else value
    groups = host.option(_MEMBERS).value
    for name, group in (groups if isinstance(groups, Mapping) else {}).items():
        if isinstance(group, Mapping):
            yield f'{_MEMBERS}."{name}".members', group.get("members") or ()
    jobs = host.option(_CRON).value or ()
    yield _CRON, observe.cron_accounts("\n".join(job for job in jobs if isinstance(job, str)))
    for option in _AUTOLOGIN:
        yield option, [host.option(option).value]
