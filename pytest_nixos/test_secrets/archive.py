"""What a machine gets for its host's secrets: one archive with the key and all encrypted files,
which its first activation unpacks.

Nothing of it lies in a store. Values and key are made once for a host with its declared secrets and
kept in the user's cache, so that a saved machine state fits the next run. What the user gave is
never kept.

What makes and encrypts values is imported where that is done: most hosts have no secrets, and those
that have recall theirs.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.local.dirs import cache_directory
from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.secrets import Secret, SecretModule
from pytest_nixos.nix.config.unit_needs import names_path
from pytest_nixos.test_secrets.given import GivenSecret, RealKey

__all__ = ["GUEST_DIRECTORY", "TestSecrets", "make_secrets", "secret_cache"]

#: Where the archive is unpacked in the guest; ``expressions/test-secrets.nix`` names it too.
GUEST_DIRECTORY = "/run/pytest-nixos-secrets"

_FORMAT = 1
_NETWORKD_USER = "systemd-network"
_ESCAPE = "surrogateescape"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSecrets:
    """The secrets of one machine.

    :param values: trees or texts by secret, each named ``sops:NAME`` or ``age:NAME``; empty where
        the secrets are the real ones.
    :param files: plain files: path to (owner or ``-``, content).
    :param real: whether the host's own secrets are decrypted, with a key of the user's.
    :param given: names and paths whose content is the user's.
    :param keepable: whether nothing in it is the user's, so that a machine state that holds it may
        be saved.
    """

    __test__ = False  # no test, for pytest

    secrets: tuple[Secret, ...]
    identity: str = field(repr=False)
    values: Mapping[str, Any] = field(repr=False)
    files: Mapping[str, tuple[str, str]] = field(repr=False)
    real: bool
    keepable: bool
    given: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether the machine gets nothing."""
        return not self.secrets and not self.files

    @property
    def digest(self) -> str:
        """Name this set of values, without telling them."""
        content = [_FORMAT, self.identity, self.values, self.files]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def told(self) -> str:
        """What the user is told of it, one line; ``""`` for nothing."""
        count = len(self.secrets)
        words = f"{count} secret{'s' if count != 1 else ''}"
        lines = []
        if count and self.real:
            lines.append(f"{words} decrypted with the key that you gave: the values are real")
        elif count:
            have = "has a test value" if count == 1 else "have test values"
            lines.append(f"{words} {have}")
        if self.files:
            lines.append(f"{len(self.files)} plain file{'s' if len(self.files) != 1 else ''} given")
        return ", ".join(lines)

    def texts_of(self, secret: Secret) -> tuple[str, ...]:
        """Return all texts that a secret holds; empty where they are not known."""
        from pytest_nixos.test_secrets.values import leaves

        value = self.values.get(_name(secret))
        return () if value is None else leaves(value)

    def at(self, path: str) -> str | None:
        """Return the text of the secret or plain file at a path of the guest; ``None`` where it is
        no single text, or there is nothing.
        """
        for secret in self.secrets:
            if secret.path == path:
                texts = self.texts_of(secret)
                return texts[0] if len(texts) == 1 else None
        return self.files[path][1] if path in self.files else None

    def is_given(self, path: str) -> bool:
        """Whether the user gave what lies at a path of the guest."""
        names = {secret.name for secret in self.secrets if secret.path == path}
        return not self.given.isdisjoint({path, *names})

    def with_text(self, path: str, text: str) -> TestSecrets:
        """Return the same with another text at a path that :meth:`at` knows."""
        for secret in self.secrets:
            if secret.path == path:
                name = _name(secret)
                return replace(
                    self, values={**self.values, name: _in_place(self.values[name], text)}
                )
        owner, _ = self.files[path]
        return replace(self, files={**self.files, path: (owner, text)})

    def rotated(self, host: HostConfig) -> TestSecrets:
        """Return other values for the same secrets under the same key."""
        from pytest_nixos.test_secrets.values import Values

        values = Values(host, {}, {})
        return replace(self, values={_name(secret): values.of(secret) for secret in self.secrets})

    def beside(self, other: TestSecrets) -> TestSecrets:
        """Return these secrets and those of another generation of the host, under one key; its
        own values win.
        """
        known = {(secret.module, secret.name) for secret in self.secrets}
        more = tuple(s for s in other.secrets if (s.module, s.name) not in known)
        return replace(
            self,
            secrets=(*self.secrets, *more),
            values={**other.values, **self.values},
            files={**other.files, **self.files},
            keepable=self.keepable and other.keepable,
        )

    def file_of(self, secret: Secret) -> str:
        """Return the path of a secret's encrypted file in the guest."""
        return f"{GUEST_DIRECTORY}/{_file_name(_name(secret))}"

    def encrypted(self, secret: Secret) -> bytes:
        """Return a secret's file as its module wants it."""
        import pyrage

        from pytest_nixos.test_secrets.sops_file import written

        recipient = pyrage.x25519.Identity.from_str(self.identity.strip()).to_public()
        value = self.values[_name(secret)]
        if secret.module is SecretModule.AGE:
            return pyrage.encrypt(str(value).encode(errors=_ESCAPE), [recipient])
        return written(value, secret.format, recipient).encode()

    def archive(self) -> bytes:
        """Return the archive."""
        entries: list[tuple[str, bytes]] = [("key", self.identity.encode())]
        entries += [
            (_file_name(_name(secret)), self.encrypted(secret))
            for secret in self.secrets
            if not self.real
        ]
        numbered = list(enumerate(self.files.items()))
        entries += [(str(n), text.encode(errors=_ESCAPE)) for n, (_, (_, text)) in numbered]
        rows = "".join(f"{n}\t{owner}\t{path}\n" for n, (path, (owner, _)) in numbered)
        entries.append((".files", rows.encode()))
        return _tar(entries)


def make_secrets(
    host: HostConfig,
    *,
    given: Sequence[GivenSecret] = (),
    offered: Mapping[str, bytes] | None = None,
    real: RealKey | None = None,
    cache: EvaluationCache | None = None,
) -> TestSecrets:
    """Make or recall the secrets of a host.

    :param given: of the command line, those of other hosts too.
    :param offered: of the hook ``pytest_nixos_test_secrets``: name or path to content.
    :param real: decrypts the host's own files instead.
    :param cache: where values are kept, see :func:`secret_cache`.
    :raises SecretError: if a secret's file is not what it is declared to be.
    :raises SettingsError: if a file that was given cannot be read.
    """
    mine = [secret for secret in given if secret.is_for(host.name)]
    contents = {s.name: c for s in mine if (c := s.content()) is not None} | dict(offered or {})
    _check_offered(host, offered or {})
    texts = {name: data.decode(errors=_ESCAPE) for name, data in contents.items()}
    kinds = {s.name: s.kind for s in mine if s.kind is not None}
    key = _cache_key(host, {name: kind.value for name, kind in kinds.items()})
    keepable = not texts and real is None
    known = cache.get(key) if cache is not None and keepable else None
    if known is None:
        import pyrage

        from pytest_nixos.test_secrets.values import Values

        values = Values(host, kinds, texts)
        known = {
            "identity": f"{pyrage.x25519.Identity.generate()}\n",
            "values": {}
            if real is not None
            else {_name(secret): values.of(secret) for secret in host.secrets.secrets},
            "files": {
                path: [
                    _owner(host, path),
                    texts[path] if path in texts else values.plain(path, kinds[path]),
                ]
                for path in dict.fromkeys((*texts, *kinds))
                if path.startswith("/")
            },
        }
        if cache is not None and keepable:
            cache.put(key, known)
    return TestSecrets(
        secrets=host.secrets.secrets,
        identity=known["identity"] if real is None else real.content().decode(errors=_ESCAPE),
        values=known["values"],
        files={path: (owner, text) for path, (owner, text) in known["files"].items()},
        real=real is not None,
        keepable=keepable,
        given=frozenset(texts),
    )


def secret_cache(*, most_age_s: float) -> EvaluationCache:
    """Return where this user's test secrets are kept, readable by nobody else."""
    return EvaluationCache(directory=cache_directory("test-secrets"), most_age_s=most_age_s)


def _check_offered(host: HostConfig, offered: Mapping[str, bytes]) -> None:
    names = {secret.name for secret in host.secrets.secrets}
    for name in offered:
        if not name.startswith("/") and name not in names:
            from pytest_nixos.test_secrets.values import SecretError

            raise SecretError(
                f"{host.name}: pytest_nixos_test_secrets gives a value for {name!r}, which is not declared",
                remedy=f"declared: {', '.join(sorted(names)) or 'none'}",
            )


def _cache_key(host: HostConfig, kinds: Mapping[str, str]) -> str:
    # An edit elsewhere in the flake gives its files other paths; the values stay.
    secrets = [msgspec.structs.replace(s, source=_content(s.source)) for s in host.secrets.secrets]
    declared = [repr(secrets), repr(host.secrets.uses)]
    parts = [_FORMAT, str(host.ref), host.host_name, *declared, sorted(kinds.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _content(source: str) -> str:
    try:
        return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
    except OSError:
        return source


def _owner(host: HostConfig, path: str) -> str:
    """Return who reads a plain file: networkd for a tunnel of its own, the account of the unit that
    names it, else root.
    """
    if any(tunnel.is_networkd and path in tunnel.files for tunnel in host.tunnels):
        return _NETWORKD_USER
    for unit in host.units.values():
        users = unit.setting("Service", "User")
        if names_path(unit, path) and users and users[-1] in host.users:
            return users[-1]
    return "-"


def _in_place(value: Any, text: str) -> Any:
    """Return a secret's tree of one text with another one in its place."""
    if isinstance(value, dict):
        return {name: _in_place(below, text) for name, below in value.items()}
    return text


def _name(secret: Secret) -> str:
    return f"{secret.module.value}:{secret.name}"


def _file_name(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _tar(entries: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o400
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
