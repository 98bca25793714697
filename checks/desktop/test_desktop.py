"""A desktop comes up: its display manager runs and stays, and something is on its screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec
import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable, poll

_UNIT = "display-manager.service"
# The units by which nixpkgs starts one; greetd's has the first as its alias (services/display-managers).
_DECLARED = (_UNIT, "greetd.service")
# These draw on the text console themselves, and have no session of a greeter.
_WITHOUT_SESSION = frozenset({"ly", "ly-dm", "lemurs", "emptty", "xpra", "tbsm"})
_LIMIT_S = 90.0
# systemd starts a display manager that ends again after 0.2 to 1 s.
_APART_S = 5.0
# What X, wlroots, smithay, aquamarine and NVIDIA's driver say where no GPU is theirs.
_NO_HARDWARE = r"""
cat /var/log/X.0.log /var/log/Xorg.0.log 2>/dev/null | grep -iE -m 1 'no screens found|no devices detected|NVIDIA: failed'
journalctl --boot --quiet --no-pager --output=cat 2>/dev/null | grep -iE -m 1 \
  'no screens found|software rendering|(unable|failed|could not|cannot) (to )?(create|find|open|init[a-z]*).{0,40}(renderer|EGL|GBM|DRM|GPU|render node)|no (suitable |usable )?(GPU|render node|DRM device)|NVRM: No NVIDIA'
true
"""
# A session of somebody at a text console is none of a desktop.
_LOOK = f"""
echo default=$(systemctl show --property=Id --value default.target)
echo target=$(systemctl is-active graphical.target)
systemctl show --property=Id,LoadState,ActiveState,MainPID,NRestarts {_UNIT}
pid=$(systemctl show --property=MainPID --value {_UNIT})
[ "$pid" = 0 ] || echo program=$(cat "/proc/$pid/comm")
for session in $(loginctl list-sessions --no-legend | awk '{{ print $1 }}'); do
  class= type= state= leader=
  while IFS='=' read -r name value; do
    case $name in Class) class=$value;; Type) type=$value;; State) state=$value;; Leader) leader=$value;; esac
  done < <(loginctl show-session --property=Class --property=Type --property=State --property=Leader "$session" 2>/dev/null)
  case $class:$type in greeter:*|user:x11|user:wayland|user:mir) ;; *) continue;; esac
  if [ "$state" = closing ] || ! [ -e "/proc/$leader" ]; then continue; fi
  echo "session $leader=$class ($(cat "/proc/$leader/comm"))"
done
"""


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is there at one time.

    :param sessions: by the process that leads each: ``greeter (gdm-session-wor)``.
    """

    facts: Mapping[str, str]
    sessions: Mapping[str, str]

    @property
    def is_by_hand(self) -> bool:
        """Whether nothing starts it at the boot."""
        return self.facts.get("default", "") != "graphical.target" and not self.is_active

    @property
    def is_active(self) -> bool:
        return self.facts.get("ActiveState") == "active"

    @property
    def needs_no_session(self) -> bool:
        return self.facts.get("program", "") in _WITHOUT_SESSION

    @property
    def is_up(self) -> bool:
        shows = self.sessions or self.needs_no_session
        return self.is_active and self.facts.get("target") == "active" and bool(shows)


@pytest.mark.nixos_control("DESK-001")
def test_the_desktop_is_up(
    nixos_host_config: HostConfig,
    nixos_machine: Machine,
    nixos_show_screen: Callable[[str], str],
    nixos_evidence: Evidence,
) -> None:
    declared = [n for n in _DECLARED if (u := nixos_host_config.units.get(n)) and u.enabled]
    if not declared:
        not_applicable("the host declares no display manager")
    first = _look(nixos_machine)
    if first.is_by_hand:
        not_applicable("the host starts its display manager by hand (no graphical.target)")
    unit = first.facts.get("Id") or _UNIT
    nixos_evidence.rest_on("unit", unit)
    nixos_evidence.expect(
        {"graphical.target": "active", unit: "active", "its screen": "a greeter or a session"}
    )
    deadline = nixos_machine.deadline(_LIMIT_S)
    poll(lambda: _look(nixos_machine).is_up or None, deadline=deadline, interval_s=1.0)
    early = _look(nixos_machine)
    time.sleep(_APART_S)
    seen = _look(nixos_machine)
    nixos_evidence.attach("screen", nixos_show_screen("after its boot") or "see the HTML report")
    nixos_evidence.observe(
        {
            "graphical.target": seen.facts.get("target", ""),
            unit: seen.facts.get("ActiveState", ""),
            "started again": int(seen.facts.get("NRestarts") or 0),
            "its screen": sorted(seen.sessions.values())
            or (f"{seen.facts['program']} itself" if seen.needs_no_session else "nothing"),
        }
    )
    problem = _problem(unit, early, seen)
    if problem and nixos_machine.backend.name.value == "vm":
        # What draws by hardware alone is not judged where there is none.
        gone = nixos_machine.run(_NO_HARDWARE).stdout_text.strip()
        if gone:
            not_applicable(f"{problem}; a VM has not the host's graphics: {gone[:200]}")
    if problem:
        nixos_evidence.blame("unit", unit)
    assert not problem, problem


def _problem(unit: str, early: _Seen, seen: _Seen) -> str:
    """Say what is wrong, ``""`` for nothing."""
    if seen.facts.get("LoadState") != "loaded":
        return f"{unit} is {seen.facts.get('LoadState') or 'unknown'}, and the host declares it"
    again = [s.facts.get("NRestarts", "") + "/" + s.facts.get("MainPID", "") for s in (early, seen)]
    if again[0] != again[1]:
        return f"{unit} ends and is started again and again"
    if not seen.is_active:
        return f"{unit} is {seen.facts.get('ActiveState') or 'unknown'}"
    if seen.facts.get("target") != "active":
        return f"graphical.target is {seen.facts.get('target') or 'unknown'}"
    if not seen.sessions and not seen.needs_no_session:
        return f"{unit} runs, and nothing is on its screen: no greeter and no session of a desktop"
    if early.sessions and seen.sessions and not early.sessions.keys() & seen.sessions.keys():
        return f"what {unit} shows ends and is started again and again"
    return ""


def _look(machine: Machine) -> _Seen:
    facts: dict[str, str] = {}
    sessions: dict[str, str] = {}
    for line in machine.run(_LOOK).stdout_text.splitlines():
        name, _, value = line.partition("=")
        if name.startswith("session "):
            sessions[name.removeprefix("session ")] = value
        else:
            facts[name] = value
    return _Seen(facts=facts, sessions=sessions)
