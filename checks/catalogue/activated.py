"""What an activation of the running system says of its own end."""

from __future__ import annotations

from pytest_nixos import observe

__all__ = ["failed_snippets"]


def failed_snippets(output: str, *, place: str) -> tuple[str, ...]:
    """Return the snippets that an activation says have failed, or ``activation script`` where it names none.

    :param output: of ``switch-to-configuration``.
    :param place: where the machine runs; in a ``container`` what systemd-nspawn has mounted is not mounted anew.
    """
    failures = observe.parse_activation(output).failures
    own = observe.own_failures(failures, place=place)
    return tuple(f.snippet for f in own) if failures else ("activation script",)
