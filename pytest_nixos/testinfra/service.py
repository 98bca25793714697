"""``host.service``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from testinfra.modules.service import Service

from pytest_nixos.errors import NixosError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.observe.systemd.unit import (
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

    testinfra matches prefixes in ``exists`` and raises in ``is_enabled`` for units that NixOS links
    from the store. Each property here is one ``systemctl show`` of exactly this unit, read anew
    each time.
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
    def activated_by(self) -> tuple[str, ...]:
        """Return the sockets, timers and paths that start this unit when they are used, for
        example ``("sshd.socket",)``.

        NixOS starts sshd of a container by its socket: between two connections the service is not
        running, and that is no fault.
        """
        if is_template(self.unit):
            return ()
        state = self._state
        if state.exists or not self.unit.endswith(".service"):
            return tuple(state.get("TriggeredBy").split())
        # A socket that accepts for itself starts an instance of a template for each connection
        # (systemd.socket(5)).
        companion = f"{self.unit.removesuffix('.service')}.socket"
        return (companion,) if self._state_of(companion).exists else ()

    @property
    def is_socket_activated(self) -> bool:
        """Return whether a socket that listens starts this unit."""
        sockets = [name for name in self.activated_by if name.endswith(".socket")]
        return any(self._state_of(name).is_running for name in sockets)

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

        Manual pages are not looked for, because a NixOS host need not have them; faults of other
        units do not count.

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

        :raises AssertionError: with the unit's state and the tail of its journal; like a failed
            ``assert``, it fails the test and is no defect of the machine.
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
        return self._state_of(self.unit)

    def _state_of(self, unit: str) -> UnitState:
        out = self.run(
            "systemctl show --no-pager --property=%s -- %s", ",".join(STATE_PROPERTIES), unit
        )
        if out.rc != 0:
            raise RuntimeError(f"systemd does not answer about {unit}: {out.stderr.strip()}")
        blocks = parse_show(out.stdout)
        return UnitState(name=unit, properties=blocks[0] if blocks else {})

    def __repr__(self) -> str:
        """Say what pytest shows beside a failed ``assert host.service("sshd").is_running``."""
        try:
            running, starters = self.is_running, self.activated_by
        except (RuntimeError, NixosError):
            running, starters = True, ()
        if running or not starters:
            return f"<service {self.name}>"
        return f"<service {self.name}: not running now, started by {', '.join(starters)}>"

    @property
    def _template_state(self) -> str:
        out = self.run(
            "systemctl list-unit-files --no-legend --no-pager --full -- %s", self.unit
        ).stdout.split()
        return str(out[1]) if len(out) > 1 else ""
