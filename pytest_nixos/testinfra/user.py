"""``host.user``."""

from __future__ import annotations

import datetime as dt
from typing import Any

from testinfra.modules.user import User

__all__ = ["NixosUser"]


class NixosUser(User):
    """Test users; the same on NixOS but for what the guest's shadow file leaves out."""

    @classmethod
    def get_module_class(cls, _host: Any) -> type[NixosUser]:
        return cls

    @property
    def expiration_date(self) -> dt.datetime | None:
        """Return the day after which the account is locked, ``None`` if never.

        Day 0 and a negative number do not mean "expired" but "never" (shadow(5) leaves them
        undefined).
        """
        fields = self.check_output("getent shadow %s", self.name).split(":")
        days = fields[7] if len(fields) > 7 else ""
        if not days.isdecimal() or days == "0":
            return None
        # Naive, as testinfra gives it.
        return dt.datetime(1970, 1, 1) + dt.timedelta(days=int(days))  # noqa: DTZ001
