"""Secrets that the user gives: ``--nixos-secret [HOST:]NAME=FILE``, or ``NAME=kind:KIND``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import msgspec

from pytest_nixos.errors import SettingsError
from pytest_nixos.test_secrets.kind import Kind

__all__ = ["GivenSecret", "RealKey", "check_declared"]

_KIND = "kind:"
_MOST_BYTES = 1 << 20
_AGE = "AGE-SECRET-KEY-"
_SSH = "PRIVATE KEY-----"


class GivenSecret(msgspec.Struct, frozen=True, kw_only=True):
    """One value that the user gives.

    :param host: for this host alone, by its attribute name; ``""`` for all.
    :param name: a declared secret, or the path of a plain file.
    :param kind: what to make, where it is not read from `file`.
    """

    host: str
    name: str
    kind: Kind | None = None
    file: Path | None = None

    @classmethod
    def parse(cls, text: str, *, cwd: Path) -> Self:
        """Read what was typed.

        :raises SettingsError: if it is malformed, the kind is unknown, or the file cannot be read.
        """
        where, equals, value = text.partition("=")
        host, colon, name = where.rpartition(":")
        if not (equals and value and name) or (colon and not host):
            raise SettingsError(
                f"--nixos-secret: got {text!r}",
                remedy="expected: NAME=FILE, HOST:NAME=FILE or NAME=kind:KIND",
            )
        if value.startswith(_KIND):
            return cls(host=host, name=name, kind=_kind(value.removeprefix(_KIND), name))
        file = cwd / value
        _read(file, f"--nixos-secret {name}")
        return cls(host=host, name=name, file=file)

    @property
    def is_plain_file(self) -> bool:
        """Whether it is a file that the config names, and no declared secret."""
        return self.name.startswith("/")

    def is_for(self, host: str) -> bool:
        """Whether a host is to get it."""
        return self.host in ("", host)

    def content(self) -> bytes | None:
        """Return what is in the file, ``None`` where a kind was given.

        :raises SettingsError: if it cannot be read any more.
        """
        return None if self.file is None else _read(self.file, f"--nixos-secret {self.name}")


class RealKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key that decrypts the host's own secrets: ``--nixos-real-secrets-key FILE``.

    :param form: ``age`` or ``ssh``.
    """

    file: Path
    form: str

    @classmethod
    def parse(cls, file: Path) -> Self:
        """Look at a key.

        :raises SettingsError: if it cannot be read, or is of neither form.
        """
        text = _read(file, "--nixos-real-secrets-key").decode(errors="replace")
        if _AGE in text:
            return cls(file=file, form="age")
        if _SSH in text:
            return cls(file=file, form="ssh")
        raise SettingsError(
            f"--nixos-real-secrets-key: {file} holds no private key",
            remedy=f"name a file with a line {_AGE}…, or a private key of OpenSSH without passphrase",
        )

    def content(self) -> bytes:
        """Return the key.

        :raises SettingsError: if it cannot be read any more.
        """
        return _read(self.file, "--nixos-real-secrets-key")


def check_declared(given: Iterable[GivenSecret], declared: Mapping[str, Iterable[str]]) -> None:
    """Refuse values that no host of the run declares a secret for.

    :param declared: names of secrets by host.
    :raises SettingsError: naming the secret and those that are declared.
    """
    for secret in given:
        hosts = [host for host in declared if secret.is_for(host)]
        # A value for a host that is not tested in this run waits for one in which it is.
        if secret.is_plain_file or not hosts:
            continue
        names = sorted({name for host in hosts for name in declared[host]})
        if secret.name not in names:
            raise SettingsError(
                f"--nixos-secret {secret.name}: {', '.join(hosts)}: no such secret is declared",
                remedy=f"declared: {', '.join(names) or 'none'}; a plain file is named by its whole path",
            )


def _kind(text: str, name: str) -> Kind:
    try:
        return Kind(text)
    except ValueError as err:
        raise SettingsError(
            f"--nixos-secret {name}: no kind of secret is called {text!r}",
            remedy=f"known: {', '.join(kind.value for kind in Kind)}",
        ) from err


def _read(file: Path, option: str) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as err:
        raise SettingsError(
            f"{option}: {file}: {err.strerror}", remedy="name a file that you can read"
        ) from err
    if len(data) > _MOST_BYTES:
        raise SettingsError(
            f"{option}: {file} is larger than {_MOST_BYTES >> 20} MiB", remedy="name a smaller file"
        )
    return data
