"""Files that a unit cannot start without, as its unit file names them (systemd.exec(5))."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pytest_nixos.nix.config.unit import Unit

__all__ = ["UnitNeed", "names_path", "needs_of"]

_CREDENTIALS = ("LoadCredential", "LoadCredentialEncrypted")


class UnitNeed(msgspec.Struct, frozen=True, kw_only=True):
    """One file of one unit.

    :param setting: ``EnvironmentFile``, ``LoadCredential`` and so on.
    :param path: absolute; ``""`` where the unit file itself holds what is encrypted.
    :param encrypted: whether only the host's own key, or its TPM, can read it.
    """

    unit: str
    setting: str
    path: str
    encrypted: bool = False


def needs_of(unit: Unit) -> Iterator[UnitNeed]:
    """Yield what a unit reads before its program starts; what it can do without is left out."""
    for text in unit.setting("Service", "EnvironmentFile"):
        if text.startswith("/") and "%" not in text:
            yield UnitNeed(unit=unit.name, setting="EnvironmentFile", path=text)
    for setting in _CREDENTIALS:
        for text in unit.setting("Service", setting):
            path = text.partition(":")[2]
            if path.startswith("/") and "%" not in path:
                encrypted = setting.endswith("Encrypted")
                yield UnitNeed(unit=unit.name, setting=setting, path=path, encrypted=encrypted)
    for text in unit.setting("Service", "SetCredentialEncrypted"):
        if text:
            name = text.partition(":")[0]
            setting = f"SetCredentialEncrypted={name}"
            yield UnitNeed(unit=unit.name, setting=setting, path="", encrypted=True)


def names_path(unit: Unit, path: str) -> bool:
    """Whether a unit file names a path, or something below it, anywhere."""
    texts = (v for keys in unit.settings.values() for values in keys.values() for v in values)
    return any(path in text for text in texts)
