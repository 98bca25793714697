"""Which kind a secret is: by what its host uses it for, else by its name, else by the length that
its encrypted file shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pytest_nixos.nix.config.secrets import SecretUse
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.nix.config.unit_needs import needs_of
from pytest_nixos.test_secrets.kind import Kind

__all__ = ["by_name", "kinds_by_path"]

_NAMES: Sequence[tuple[str, Kind]] = (
    (r"hash(?:ed)?[-_]?pass|pass(?:word|wd)?[-_]?hash|pw[-_]?hash", Kind.PASSWORD_HASH),
    (r"(?:^|[-_/.])(?:wg\d*|wireguard).*(?:psk|preshared)", Kind.WIREGUARD_PRESHARED_KEY),
    (r"(?:^|[-_/.])(?:wg\d*|wireguard).*pub", Kind.WIREGUARD_PUBLIC_KEY),
    (r"(?:^|[-_/.])(?:wg\d*|wireguard)(?:$|[-_/.])", Kind.WIREGUARD_KEY),
    (r"(?:ssh|deploy).*(?:\.pub$|public)|id_\w+\.pub$", Kind.SSH_PUBLIC_KEY),
    (r"ssh.*rsa|id_rsa", Kind.SSH_RSA_KEY),
    (r"ssh.*key|id_ed25519|id_ecdsa|deploy[-_]?key|(?:borg|backup).*ssh", Kind.SSH_KEY),
    (r"(?:^|[-_/.])ca[-_.]?(?:cert|crt|pem|chain)", Kind.CA_CERTIFICATE),
    (r"(?:tls|ssl|cert|server|client|https?)[-_./]?(?:priv(?:ate)?[-_.]?)?key|privkey|\.key$", Kind.CERTIFICATE_KEY),
    (r"cert(?:ificate)?(?:$|[-_.])|\.crt$|full-?chain", Kind.CERTIFICATE),
    (r"(?:^|[-_./])env(?:$|[-_./])|environment", Kind.ENVIRONMENT),
    (r"\.json$", Kind.JSON),
)  # fmt: skip
_BY_NAME = tuple((re.compile(pattern, re.IGNORECASE), kind) for pattern, kind in _NAMES)
_WIREGUARD_LENGTHS = (None, 44, 45)
_BASE64_LENGTH = 44
_HEX_LENGTHS = (64, 128)


def kinds_by_path(uses: Iterable[SecretUse], units: Mapping[str, Unit]) -> Mapping[str, Kind]:
    """Return what the files have to hold that a host's options and units name."""
    found: dict[str, Kind] = {}
    for unit in units.values():
        for need in needs_of(unit):
            if need.setting == "EnvironmentFile":
                found[need.path] = Kind.ENVIRONMENT
    return found | {use.path: Kind(use.kind) for use in uses}


def by_name(name: str, length: int | None) -> Kind:
    """Return the kind that a secret's name and length speak for; a password where neither does."""
    for pattern, kind in _BY_NAME:
        if pattern.search(name) and (
            kind is not Kind.WIREGUARD_KEY or length in _WIREGUARD_LENGTHS
        ):
            return kind
    if length == _BASE64_LENGTH:
        return Kind.BASE64
    return Kind.HEX if length in _HEX_LENGTHS else Kind.PASSWORD
