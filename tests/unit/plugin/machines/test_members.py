"""What is said of tunnels between members before anything boots."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.local.process import Completed
from pytest_nixos.local.timing import Deadline
from pytest_nixos.plugin.machines.members import no_wireguard
from tests.unit.machine.cluster.test_owners import member, owners, pair, peer


class FakeRunner:
    """A kernel that makes WireGuard interfaces, or does not."""

    def __init__(self, exit_status: int) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._exit_status = exit_status

    def run(self, argv: Sequence[str], *, deadline: Deadline, **_more: object) -> Completed:
        assert not deadline.expired
        self.asked.append(tuple(argv))
        return Completed(
            argv=tuple(argv), exit_status=self._exit_status, stdout=b"", stderr=b"Unknown device"
        )


@pytest.mark.parametrize(
    ("kinds", "exit_status", "is_refused"),
    [
        (("container", "container"), 2, True),
        (("vm", "container"), 2, True),
        (("container", "container"), 0, False),
        (("vm", "vm"), 2, False),
    ],
)
def test_containers_have_wireguard_where_this_machine_has(
    kinds: tuple[str, str], exit_status: int, is_refused: bool
) -> None:
    found = owners(*pair(peer("B", "10.1.0.2/32"), peer("A", "10.1.0.1/32")))
    runner = FakeRunner(exit_status)
    asked = dict(zip("ab", map(BackendName, kinds), strict=True))
    assert ("no WireGuard" in no_wireguard(found, asked, runner)) is is_refused
    assert all("wireguard" in argv for argv in runner.asked)
    assert bool(runner.asked) is ("container" in kinds)


def test_a_container_beside_tunnels_needs_none() -> None:
    found = owners(*pair(peer("B", "10.1.0.2/32"), peer("A", "10.1.0.1/32")), member("c", 3))
    kinds = {"a": BackendName.VM, "b": BackendName.VM, "c": BackendName.CONTAINER}
    assert no_wireguard(found, kinds, FakeRunner(2)) == ""
