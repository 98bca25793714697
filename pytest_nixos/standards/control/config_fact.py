"""One fact that follows from a host's evaluated config."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import msgspec

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.seen import Sight

__all__ = ["ConfigFact"]


class ConfigFact(msgspec.Struct, frozen=True, kw_only=True):
    """One fact.

    :param options: option paths that it reads beside the typed facts of the host config.
    """

    about: str
    read: Callable[[HostConfig, dt.date], Sight]
    options: tuple[str, ...] = ()
