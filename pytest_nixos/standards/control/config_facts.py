"""The kind about the evaluated config: facts that more than one option says together."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.secrets.values import names_elsewhere, stands_for_none
from pytest_nixos.standards.control.config_fact import ConfigFact
from pytest_nixos.standards.control.nixos_releases import load_releases
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.control.services import unit_environment

__all__ = ["CONFIG_FACTS"]

Json = Any

_PASSWORDS = ("password", "initialPassword", "hashedPassword", "initialHashedPassword")
_PASSWORD_FILES = ("hashedPasswordFile", "passwordFile")
_STORE = "/nix/store/"
_HARMLESS = frozenset({None, "!", "*", "!!"})
_SECRET_NAME = re.compile(r"(?i)(passw(or)?d|secret|token|api_?key|private_?key)$")
_SECRET_DIRS = re.compile(r"/run/(?:secrets|agenix|keys)(?:/|\.d/)")
_WIDE_RANGE = 1024
#: Options that put a secret's text into a file of the store.
_INLINE_SECRETS = (
    "services.grafana.settings.security.admin_password",
    "services.grafana.settings.security.secret_key",
    "services.nats.settings.authorization.password",
    "services.nats.settings.authorization.token",
    "services.qdrant.settings.service.api_key",
)


def _literal_passwords(host: HostConfig, _: dt.date) -> Sight:
    users = host.option("users.users").value
    if not isinstance(users, Mapping):
        return Unseen("the option users.users cannot be evaluated")
    return Seen(
        sorted(
            f"{name}.{key}"
            for name, user in users.items()
            if isinstance(user, Mapping)
            for key in _PASSWORDS
            if user.get(key) not in _HARMLESS
        )
    )


def _inline_secrets(host: HostConfig, _: dt.date) -> Sight:
    """List options that hold a secret's text.

    An option has its value on every host; it says something about those that run the service. What
    nixpkgs' module writes where the host says nothing is no secret of the host.
    """
    found = []
    for path in _INLINE_SECRETS:
        service = ".".join(path.split(".")[:2])
        value = host.option(path).value
        if (
            isinstance(value, str)
            and value
            and host.option(f"{service}.enable").value is not False
            and not value.startswith("@")
            and not names_elsewhere(value)
            and not stands_for_none(value)
        ):
            found.append(path)
    return Seen(found)


def _secret_files_in_store(host: HostConfig, _: dt.date) -> Sight:
    """List options that name a secret's file in the store, where everybody reads it.

    ``EnvironmentFile`` is left out: nixpkgs' own modules put settings that are no secrets there by
    it.
    """
    found = [
        f"{name}: LoadCredential"
        for name, unit in host.units.items()
        for text in unit.setting("Service", "LoadCredential")
        if text.partition(":")[2].startswith(_STORE)
    ]
    users = host.option("users.users").value
    for name, user in users.items() if isinstance(users, Mapping) else ():
        found += [
            f"users.users.{name}.{key}"
            for key in _PASSWORD_FILES
            if isinstance(user, Mapping) and str(user.get(key) or "").startswith(_STORE)
        ]
    for number, key_ in enumerate(host.option("services.openssh.hostKeys").value or ()):
        if isinstance(key_, Mapping) and str(key_.get("path") or "").startswith(_STORE):
            found.append(f"services.openssh.hostKeys.{number}.path")
    return Seen(sorted(found))


def _secret_environment(host: HostConfig, _: dt.date) -> Sight:
    return Seen(
        sorted(
            f"{name}: {key}"
            for name, unit in host.units.items()
            for key, value in unit_environment(unit).items()
            if _holds_secret(key, value)
        )
    )


# Units of one NixOS release have most of their variables in common, on every host of a fleet.
@lru_cache(maxsize=4096)
def _holds_secret(name: str, value: str) -> bool:
    if _SECRET_NAME.search(name) and value and not names_elsewhere(value):
        return True
    from pytest_nixos.secrets.scan import find_secrets

    return any(not hit.placeholder for hit in find_secrets(f'"{name}={value}"'))


def _texts(unit: Unit) -> Iterator[str]:
    for section in unit.settings.values():
        for values in section.values():
            yield from values


#: Units that start a program, which can read a secret; a path or timer only names it.
_STARTING = (".service", ".socket", ".mount", ".swap")


def _secret_users(host: HostConfig) -> list[str]:
    return sorted(
        name
        for name, unit in host.units.items()
        if name.endswith(_STARTING) and any(_SECRET_DIRS.search(text) for text in _texts(unit))
    )


def _declared_secrets(host: HostConfig) -> list[str]:
    """Return the secrets that sops-nix and agenix declare, with the option's name."""
    found = []
    for path in ("sops.secrets", "age.secrets"):
        value = host.option(path).value
        found += [f"{path}.{name}" for name in value] if isinstance(value, Mapping) else []
    return sorted(found)


def _secrets_without_backend(host: HostConfig, _: dt.date) -> Sight:
    units = _secret_users(host)
    if _declared_secrets(host):
        return Seen([])
    if not units:
        reason = "the host declares no secret, and no unit of it reads a decrypted one"
        return Unseen(reason, applicable=False)
    return Seen(units)


def _secrets_without_credentials(host: HostConfig, _: dt.date) -> Sight:
    services = [unit for unit in _secret_users(host) if unit.endswith(".service")]
    if not services:
        declared = len(_declared_secrets(host))
        also = f", though {declared} are declared (for users, files or other programs)"
        reason = f"no service of the host names a decrypted secret{also if declared else ''}"
        return Unseen(reason, applicable=False)
    keys = ("LoadCredential", "LoadCredentialEncrypted", "ImportCredential")
    return Seen([u for u in services if not any(host.units[u].setting("Service", k) for k in keys)])


def _state_version(host: HostConfig, _: dt.date) -> Sight:
    if host.state_version is None:
        return Seen(["system.stateVersion is not set"])
    if host.state_version == host.version != host.release:
        return Seen([f"system.stateVersion follows system.nixos.version ({host.version})"])
    if host.state_version > host.release:
        return Seen(
            [f"system.stateVersion {host.state_version} is above the release {host.release}"]
        )
    return Seen([])


def _ollama_host(host: HostConfig, _: dt.date) -> Sight:
    if host.ollama is None:
        return Unseen("the host does not run Ollama", applicable=False)
    return Seen(host.ollama.host)


def _ollama_opened(host: HostConfig, _: dt.date) -> Sight:
    if host.ollama is None:
        return Unseen("the host does not run Ollama", applicable=False)
    opened = host.ollama.open_firewall or host.ollama.port in _open_ports(host)
    return Seen(opened)


def _open_ports(host: HostConfig) -> list[int]:
    ports: set[int] = set()
    for span in host.firewall.everywhere.tcp:
        ports.update(range(span.first, min(span.last, span.first + _WIDE_RANGE) + 1))
    return sorted(ports)


def _release(host: HostConfig, today: dt.date) -> Sight:
    problem = load_releases().release_problem(host.release, today)
    return Seen([] if problem is None else [problem])


CONFIG_FACTS: Mapping[str, ConfigFact] = {
    "literal-passwords": ConfigFact(
        about="users with a password or a hash in the configuration (names only)",
        read=_literal_passwords,
        options=("users.users",),
    ),
    "inline-secrets": ConfigFact(
        about="options that hold a secret's text instead of a file's name",
        read=_inline_secrets,
        options=(
            *_INLINE_SECRETS,
            *sorted({f"{'.'.join(path.split('.')[:2])}.enable" for path in _INLINE_SECRETS}),
        ),
    ),
    "secret-environment": ConfigFact(
        about="units that set a variable named like a secret (names only)",
        read=_secret_environment,
    ),
    "secret-files-in-store": ConfigFact(
        about="password files, host keys and credentials of units that lie in the store",
        read=_secret_files_in_store,
        options=("users.users", "services.openssh.hostKeys"),
    ),
    "secrets-without-backend": ConfigFact(
        about="units that read decrypted secrets while neither sops-nix nor agenix declares any",
        read=_secrets_without_backend,
        options=("sops.secrets", "age.secrets"),
    ),
    "secrets-without-credentials": ConfigFact(
        about="units that read decrypted secrets without systemd credentials",
        read=_secrets_without_credentials,
    ),
    "state-version": ConfigFact(
        about="what is wrong with `system.stateVersion`", read=_state_version
    ),
    "derivation": ConfigFact(
        about="the derivation of the machine, which exists only if every assertion holds",
        read=lambda host, _: Seen(host.derivation or None),
    ),
    "warnings": ConfigFact(
        about="warnings of the evaluation", read=lambda host, _: Seen(list(host.warnings))
    ),
    "ollama-host": ConfigFact(
        about="address on which Ollama is declared to listen", read=_ollama_host
    ),
    "ollama-opened": ConfigFact(
        about="whether the firewall is declared to open Ollama's port", read=_ollama_opened
    ),
    "open-tcp-ports": ConfigFact(
        about="TCP ports that the firewall is declared to open on every interface",
        read=lambda host, _: Seen(_open_ports(host)),
    ),
    "release": ConfigFact(about="why the release is not supported, if so", read=_release),
}
