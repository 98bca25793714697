"""The values of one host's secrets, in the shape in which each is encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_nixos.errors import NixosError
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.secrets import Secret, SecretModule
from pytest_nixos.test_secrets.choose import by_name, kinds_by_path
from pytest_nixos.test_secrets.kind import Kind
from pytest_nixos.test_secrets.maker import Maker
from pytest_nixos.test_secrets.sops_file import FORMATS, lengths_of

__all__ = ["SecretError", "Values", "leaves"]

_AGE_STARTS = (b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----")
_GIT_CRYPT = b"\0GITCRYPT"
_MOST_BYTES = 8 << 20


class SecretError(NixosError):
    """A secret of a host can have no test value, for a reason that keeps it from working at home
    too.
    """


class Values:
    """Makes the values of one host.

    :param kinds: of the user's, by name of the secret.
    :param texts: values of the user's, by name of the secret.
    """

    def __init__(
        self, host: HostConfig, kinds: Mapping[str, Kind], texts: Mapping[str, str]
    ) -> None:
        self._kinds = kinds
        self._texts = texts
        self._by_path = kinds_by_path(host.secrets.uses, host.units)
        self._maker = Maker(host.host_name)
        # Secrets that are the same at home are the same here.
        self._same: dict[tuple[str, ...], Any] = {}
        self._shapes: dict[tuple[str, str], Any] = {}

    def of(self, secret: Secret) -> Any:
        """Return a secret's text, or for sops the tree that is encrypted.

        :raises SecretError: if its file cannot be what it is declared to be.
        """
        if secret.module is SecretModule.AGE:
            _check_age(secret)
            return self._text(secret, None)
        if secret.format not in FORMATS:
            raise SecretError(
                f"{secret.option}: format {secret.format!r} is none of sops",
                remedy=f"known: {', '.join(FORMATS)}",
            )
        return self._sops(secret, self._shape(secret))

    def plain(self, name: str, kind: Kind) -> str:
        """Return the text of a plain file."""
        return self._maker.make(kind, name)

    def _sops(self, secret: Secret, shape: Any) -> Any:
        if secret.format == "binary":
            length = None if shape is None else shape.get("data")
            return {"data": self._text(secret, length)}
        if secret.format in ("dotenv", "ini") or secret.key == "":
            return self._whole(secret, shape)
        length = self._length_at(secret, shape)
        tree: Any = self._text(secret, length)
        for name in reversed(secret.key.split("/")):
            tree = {name: tree}
        return tree

    def _whole(self, secret: Secret, shape: Any) -> Any:
        given = self._texts.get(secret.name)
        if given is not None:
            return _parsed(given, secret)
        if shape is None:
            shape = {"PYTEST_NIXOS_TEST_SECRET": None}
            if secret.format == "ini":
                shape = {"secrets": shape}
        return self._filled(secret, shape)

    def _filled(self, secret: Secret, shape: Any, path: tuple[str, ...] = ()) -> Any:
        if isinstance(shape, dict):
            return {name: self._filled(secret, s, (*path, name)) for name, s in shape.items()}
        key = (secret.source or secret.name, secret.format, "/".join(path))
        if key not in self._same:
            name = path[-1]
            kind = by_name(name, shape)
            # One value of a file of variables is no such file.
            kind = Kind.PASSWORD if kind is Kind.ENVIRONMENT else kind
            self._same[key] = self._maker.make(kind, name, length=shape)
        return self._same[key]

    def _text(self, secret: Secret, length: int | None) -> str:
        if secret.name in self._texts:
            return self._texts[secret.name]
        key = (secret.source or secret.name, secret.format, secret.key)
        if secret.name in self._kinds or key not in self._same:
            kind = (
                self._kinds.get(secret.name)
                or self._by_path.get(secret.path)
                or by_name(secret.name, length)
            )
            self._same[key] = self._maker.make(kind, secret.name, length=length)
        return str(self._same[key])

    def _shape(self, secret: Secret) -> Any:
        """Return what the host's own file shows, ``None`` where it cannot be read."""
        if (secret.source, secret.format) not in self._shapes:
            data = _read(secret.source)
            self._shapes[secret.source, secret.format] = (
                None
                if data is None
                else lengths_of(
                    data.decode(errors="replace"),
                    secret.format,
                    about=f"{secret.option}: {_shown(secret.source)}",
                )
            )
        return self._shapes[secret.source, secret.format]

    def _length_at(self, secret: Secret, shape: Any) -> int | None:
        if shape is None:
            return None
        below = shape
        for name in secret.key.split("/"):
            if not isinstance(below, dict) or name not in below:
                raise SecretError(
                    f"{secret.option}: {_shown(secret.source)} has no key {secret.key!r}",
                    remedy=f"add it with `sops {_shown(secret.source)}`, or set {secret.option}.key",
                )
            below = below[name]
        if isinstance(below, dict):
            raise SecretError(
                f"{secret.option}: {secret.key!r} in {_shown(secret.source)} is no single value",
                remedy=f"name one below it, such as {secret.key}/{next(iter(below), '…')}",
            )
        return below if isinstance(below, int) else None


def leaves(value: Any) -> tuple[str, ...]:
    """Return all texts of a secret's tree."""
    if isinstance(value, dict):
        return tuple(text for below in value.values() for text in leaves(below))
    return (value,)


def _check_age(secret: Secret) -> None:
    data = _read(secret.source)
    if data is not None and not data.startswith(_AGE_STARTS):
        raise SecretError(
            f"{secret.option}: {_shown(secret.source)} is no file of age, so nothing can decrypt it",
            remedy=f"encrypt it with `agenix -e {_shown(secret.source)}`",
        )


def _read(source: str) -> bytes | None:
    """Return the host's encrypted file; ``None`` where it is not here or locked by git-crypt."""
    try:
        with Path(source).open("rb") as file:
            data = file.read(_MOST_BYTES)
    except (OSError, ValueError):
        return None
    return None if data.startswith(_GIT_CRYPT) else data


def _shown(source: str) -> str:
    """Return a path inside a flake without the store's part of it."""
    parts = Path(source).parts
    return "/".join(parts[4:]) if parts[:3] == ("/", "nix", "store") and parts[4:] else source


def _parsed(text: str, secret: Secret) -> Any:
    """Read the user's value for a whole file."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if secret.format == "dotenv" and all("=" in line for line in lines):
        return {name.strip(): value for name, _, value in (li.partition("=") for li in lines)}
    raise SecretError(
        f"{secret.option}: a value for a whole file in the format {secret.format} is not read",
        remedy="give it as lines NAME=VALUE in the format dotenv, or declare single keys of the file",
    )
