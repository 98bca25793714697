"""One rule of polkit that makes everybody root is one cause."""

from __future__ import annotations

from tests.unit.standards.sources.test_told_secrets import causes, finding


def test_what_makes_everybody_root_is_told_once() -> None:
    for what in ("any action", "any action over a network", "org.freedesktop.policykit.exec"):
        root, anybody = (
            finding(control, f"everybody: {what}") for control in ("AUTH-033", "AUTH-034")
        )
        assert causes(anybody, root) == {"AUTH-033": (), "AUTH-034": ("AUTH-033",)}


def test_what_else_anybody_may_do_stays_a_cause() -> None:
    root = finding("AUTH-033", "everybody: org.freedesktop.policykit.exec")
    more = "everybody: org.freedesktop.policykit.exec, org.freedesktop.login1.reboot"
    assert causes(root, finding("AUTH-034", more)) == {"AUTH-033": (), "AUTH-034": ()}
    person = finding("AUTH-033", "alice: any action")
    assert causes(person, finding("AUTH-034", "everybody: any action"))["AUTH-034"] == ()
    assert finding("AUTH-035", "everybody: any action").blames == ()
