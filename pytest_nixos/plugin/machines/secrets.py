"""The secrets of a session's host: what the options give, what the user's hook gives, and the rest
made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_nixos.machine.base import SecretArchive
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.plugin.settings.options import Settings
from pytest_nixos.test_secrets.archive import TestSecrets, make_secrets, secret_cache
from pytest_nixos.test_secrets.given import GivenSecret

__all__ = ["archived", "secrets_of"]


def secrets_of(
    host: HostConfig, settings: Settings, config: Any, *, more: Sequence[GivenSecret] = ()
) -> TestSecrets:
    """Make the secrets of a host's machines.

    :param config: pytest's, whose hooks are asked.
    :param more: plain files that its machine needs beside what the user gives.
    :raises NixosError: if a value is given for what is not declared, or a secret's own file cannot
        be what it is declared to be.
    """
    offered: dict[str, bytes] = {}
    for given in config.hook.pytest_nixos_test_secrets(config=config, host=host):
        values = (given or {}).items()
        offered |= {name: v.encode() if isinstance(v, str) else bytes(v) for name, v in values}
    return make_secrets(
        host,
        given=(*settings.secrets, *more),
        offered=offered,
        real=settings.real_secrets_key,
        cache=secret_cache(most_age_s=settings.cache_limits.most_age_s),
    )


def archived(secrets: TestSecrets, directory: Path) -> SecretArchive | None:
    """Write what a machine gets into its run directory; ``None`` where it gets nothing."""
    if secrets.is_empty:
        return None
    path = directory / "secrets.tar"
    path.touch(mode=0o600)
    path.write_bytes(secrets.archive())
    return SecretArchive(path=path, digest=secrets.digest, may_be_saved=secrets.keepable)
