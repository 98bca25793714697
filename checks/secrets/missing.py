"""Files of secrets that no module of secrets brings: the config names them, and a test machine has
them only if somebody gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from pytest_nixos import HostConfig

__all__ = ["Lacking", "lacking_of"]

_BROUGHT = ("/nix/store/", "/proc/", "/sys/", "/dev/", "/var/lib/acme/")
_INTERFACE = re.compile(r"networking\.(wireguard|wg-quick)\.interfaces\.([^.]+)\.")
_KINDS = {"EnvironmentFile": "kind:environment"}
# What a program reads by itself once it runs, as restic and borg do.
_READ_LATER = re.compile(
    r"\b(?P<name>\w*(?:PASS\w*|SECRET|TOKEN|KEY|CREDENTIALS?|REPOSITORY)_FILE=|\w*PASSCOMMAND=cat )(?P<path>/[^\s\"']+)"
)
# What a service, or another one, may make as it runs.
_MADE_AT_RUN_TIME = ("/var/", "/run/", "/tmp/", "/home/", "/root/")  # noqa: S108 - compared


class Lacking(msgspec.Struct, frozen=True, kw_only=True):
    """One file that has to be there, or one credential that only the host's own key opens.

    :param about: option or setting that names it.
    :param unit: that does not start without it, ``""`` for none.
    :param kind: how ``--nixos-secret`` makes one.
    """

    about: str
    path: str
    unit: str = ""
    encrypted: bool = False
    kind: str = "kind:password"

    @property
    def words(self) -> str:
        """What is wrong where it is lacking."""
        effect = f": {self.unit} does not start" if self.unit else ""
        if self.encrypted:
            return f"only the key of the host itself, or its TPM, decrypts it{effect}"
        return f"{self.path} is not there{effect}"

    @property
    def remediable(self) -> bool:
        """Whether a file that is given would help."""
        return bool(self.path) and not self.encrypted


def lacking_of(host: HostConfig) -> tuple[Lacking, ...]:
    """Return all files of secrets that the host's config names and no module of it brings."""
    brought = {secret.path for secret in (*host.secrets.secrets, *host.secrets.templates)}
    found = [*_of_units(host), *_of_options(host)]
    return tuple(
        dict.fromkeys(
            lack
            for lack in found
            if lack.encrypted or (lack.path not in brought and not lack.path.startswith(_BROUGHT))
        )
    )


def _of_units(host: HostConfig) -> Iterator[Lacking]:
    triggered = _triggered(host)
    for need in host.unit_needs:
        unit = host.units[need.unit]
        if unit.wanted_by or unit.name.endswith(".socket") or unit.name in triggered:
            yield Lacking(
                about=f"{need.unit}: {need.setting}",
                path=need.path,
                unit=need.unit,
                encrypted=need.encrypted,
                kind=_KINDS.get(need.setting, "kind:password"),
            )

    for name in sorted(triggered & host.units.keys()):
        for text in host.units[name].setting("Service", "Environment"):
            for read in _READ_LATER.finditer(text):
                if not read["path"].startswith(_MADE_AT_RUN_TIME):
                    about = f"{name}: {read['name'].partition('=')[0]}"
                    yield Lacking(about=about, path=read["path"], unit=name)


def _triggered(host: HostConfig) -> frozenset[str]:
    """Return the units that a timer, socket or path starts which something wants."""
    return frozenset(
        unit.starts
        for unit in host.units.values()
        if unit.enabled and unit.wanted_by and unit.starting
    )


def _of_options(host: HostConfig) -> Iterator[Lacking]:
    for use in host.secrets.uses:
        interface = _INTERFACE.match(use.option)
        if use.kind == "password-hash":
            yield Lacking(about=use.option, path=use.path, kind="kind:password-hash")
        elif interface:
            prefix = {"wireguard": "wireguard-", "wg-quick": "wg-quick-"}[interface[1]]
            unit = f"{prefix}{interface[2]}.service"
            known = unit if unit in host.units else ""
            yield Lacking(about=use.option, path=use.path, unit=known, kind=f"kind:{use.kind}")
