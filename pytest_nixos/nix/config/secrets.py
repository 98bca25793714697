"""Secrets that a host declares, and what the files are for that its options name."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Self

import msgspec

__all__ = ["Secret", "SecretModule", "SecretUse", "Secrets"]

Json = Any


class SecretModule(enum.Enum):
    """Whose option declares a secret; what builds on one of the two declares it there too."""

    SOPS = "sops"
    AGE = "age"


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """One secret, or one template of sops-nix, as it is to lie in the running system.

    :param path: where services find it.
    :param source: the encrypted file, ``""`` where it is not known (and for a template).
    :param key: of sops: where in that file; ``""`` means the whole of it.
    :param format: of sops: ``yaml``, ``json``, ``binary``, ``dotenv``, ``ini``.
    :param owner: a user's name or number, ``""`` for root; `group` alike.
    :param mode: as the option holds it, octal digits.
    :param symlink: of agenix: whether `path` is a link to the file.
    """

    name: str
    module: SecretModule
    path: str
    source: str = ""
    key: str = ""
    format: str = ""
    owner: str = ""
    group: str = ""
    mode: str = ""
    needed_for_users: bool = False
    restart_units: tuple[str, ...] = ()
    symlink: bool = True

    @property
    def option(self) -> str:
        """The option that declares it."""
        return f'{self.module.value}.secrets."{self.name}"'


class SecretUse(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an option names.

    :param kind: what has to be in it, a name of :class:`pytest_nixos.test_secrets.kind.Kind`.
    """

    option: str
    path: str
    kind: str


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """All secrets of a host."""

    secrets: tuple[Secret, ...] = ()
    templates: tuple[Secret, ...] = ()
    uses: tuple[SecretUse, ...] = ()

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> Self:
        """Read what ``facts.nix`` says of them."""
        return cls(
            secrets=(*map(_sops, data["sops"]), *map(_age, data["age"])),
            templates=tuple(_sops(entry) for entry in data["templates"]),
            uses=tuple(
                SecretUse(option=use["option"], path=use["path"], kind=use["kind"])
                for use in data["uses"]
            ),
        )


def _sops(data: Mapping[str, Json]) -> Secret:
    return Secret(
        name=data["name"],
        module=SecretModule.SOPS,
        path=data["path"],
        source=data.get("sopsFile", ""),
        key=data.get("key", ""),
        format=data.get("format", ""),
        # A number counts where no name is set.
        owner=data["owner"] or data["uid"],
        group=data["group"] or data["gid"],
        mode=data["mode"],
        needed_for_users=data.get("neededForUsers", False),
        restart_units=tuple(data.get("restartUnits", ())),
    )


def _age(data: Mapping[str, Json]) -> Secret:
    return Secret(
        name=data["name"],
        module=SecretModule.AGE,
        path=data["path"],
        source=data["file"],
        owner=data["owner"],
        group=data["group"],
        mode=data["mode"],
        symlink=data["symlink"],
    )
