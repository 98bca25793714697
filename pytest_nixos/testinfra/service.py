"""``host.service``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from testinfra.modules.service import Service

from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.observe.unit import (
    STATE_PROPERTIES,
    UnitState,
    is_template,
    parse_show,
    unit_name,
)

__all__ = ["NixosService"]

_JOURNAL_LINES = "30"


class NixosService(Service):
    """Test systemd units; a name without suffix is a service's.

    testinfra matches prefixes in ``exists`` and raises in ``is_enabled`` for units that NixOS links from the
    store. Each property here is one ``systemctl show`` of exactly this unit, read anew each time.
    """

    @classmethod
    def get_module_class(cls, _host: Any) -> type[NixosService]:
        return cls

    @property
    def unit(self) -> str:
        """The unit's full name."""
        return unit_name(self.name)

    @property
    def exists(self) -> bool:
        """Return whether systemd has this very unit, or template."""
        return bool(self._template_state) if is_template(self.unit) else self._state.exists

    @property
    def is_running(self) -> bool:
        """Return whether the unit is active; a oneshot unit that remains after exit counts."""
        return not is_template(self.unit) and self._state.is_running

    @property
    def is_enabled(self) -> bool:
        """Return whether another unit pulls this one in, so that it starts without being asked.

        A service that only its socket or timer starts is not enabled: its socket or timer is.
        """
        if is_template(self.unit):
            return self._template_state in ("enabled", "enabled-runtime")
        return self._state.is_enabled

    @property
    def is_masked(self) -> bool:
        """Return whether the unit is masked."""
        if is_template(self.unit):
            return self._template_state.startswith("masked")
        return self._state.is_masked

    @property
    def is_failed(self) -> bool:
        """Return whether the unit's last run failed."""
        return not is_template(self.unit) and self._state.is_failed

    @property
    def is_valid(self) -> bool:
        """Return True if systemd-analyze finds no fault with the unit.

        Manual pages are not looked for, because a NixOS host need not have them; faults of other units do not
        count.

        :raises AssertionError: with what it found.
        """
        found = self.run("systemd-analyze verify --man=no --recursive-errors=no %s", self.unit)
        assert (found.rc, found.stdout, found.stderr) == (0, "", "")
        return True

    @functools.cached_property
    def systemd_properties(self) -> Mapping[str, str]:
        """All properties that are set, as ``systemctl show`` prints them.

        Where one is printed more than once (``ExecStart``), each value is a line.
        """
        blocks = parse_show(self.check_output("systemctl show --no-pager -- %s", self.unit))
        return dict(blocks[0]) if blocks else {}

    def wait_until_running(self, *, timeout_s: float = 60.0) -> None:
        """Wait until the unit is active; give up at once when it fails.

        :raises AssertionError: with the unit's state and the tail of its journal; like a failed ``assert``, it
            fails the test and is no defect of the machine.
        """
        deadline = Deadline.after(timeout_s)
        state = poll(self._settled, deadline=deadline, interval_s=0.25)
        if state is not None and state.is_running:
            return
        found = state or self._state
        log = self.run(
            "journalctl --boot --no-pager --quiet --lines=%s --unit=%s", _JOURNAL_LINES, self.unit
        )
        raise AssertionError(
            f"{self.unit}: {found.get('ActiveState') or 'unknown'} ({found.get('SubState')}, result "
            f"{found.get('Result') or 'unknown'}) after {deadline.elapsed_s:.1f} s, expected active; "
            f"its journal:\n{log.stdout}"
        )

    def _settled(self) -> UnitState | None:
        state = self._state
        # An automatic restart passes through "activating (auto-restart)", so "failed" is an end.
        return state if state.is_running or state.is_failed or not state.exists else None

    @property
    def _state(self) -> UnitState:
        out = self.run(
            "systemctl show --no-pager --property=%s -- %s", ",".join(STATE_PROPERTIES), self.unit
        )
        if out.rc != 0:
            raise RuntimeError(f"systemd does not answer about {self.unit}: {out.stderr.strip()}")
        blocks = parse_show(out.stdout)
        return UnitState(name=self.unit, properties=blocks[0] if blocks else {})

    @property
    def _template_state(self) -> str:
        out = self.run(
            "systemctl list-unit-files --no-legend --no-pager --full -- %s", self.unit
        ).stdout.split()
        return str(out[1]) if len(out) > 1 else ""
