"""LUKS devices that stage 2 opens: crypttab(5), as ``environment.etc.crypttab`` declares it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["CrypttabEntry", "crypttab_entries"]

_NO_LUKS = frozenset({"plain", "swap", "tmp", "tcrypt", "bitlk"})


class CrypttabEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One device of crypttab(5).

    :param key_file: in the running system, ``""`` where systemd asks for a passphrase.
    """

    name: str
    device: str
    key_file: str
    options: tuple[str, ...]

    @property
    def is_luks(self) -> bool:
        """Whether there is a header on the device; without one each boot may make it anew."""
        kinds = {option.partition("=")[0] for option in self.options}
        return not kinds & _NO_LUKS

    @property
    def is_headless(self) -> bool:
        """Whether nobody may be asked for its passphrase."""
        return bool({"headless", "headless=true", "headless=yes", "headless=1"} & set(self.options))


def crypttab_entries(text: str) -> Sequence[CrypttabEntry]:
    """Read crypttab(5)."""
    rows = [line.split() for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [
        CrypttabEntry(
            name=row[0],
            device=row[1],
            key_file="" if len(row) < 3 or row[2] in ("-", "none") else row[2],
            options=tuple(row[3].split(",")) if len(row) > 3 else (),
        )
        for row in rows
        if len(row) >= 2
    ]
