"""The networks of a run script, and QEMU's arguments for a stranger on each."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.machine.network.wire import filter_argv, user_networks


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("-net nic,netdev=user.0,model=virtio -netdev user,id=user.0,restrict=on", ("user.0",)),
        ('-netdev user,id=user.0,"$QEMU_NET_OPTS" \\\n', ("user.0",)),
        ("-netdev user,net=10.0.2.0/24,id=user.0", ("user.0",)),
        (
            "-netdev user,id=user.0 -device e1000,netdev=user.0 -netdev 'user,id=lan'",
            ("user.0", "lan"),
        ),
        ("-netdev tap,id=user.0", ()),
        ("-nic none", ()),
    ],
)
def test_the_networks_of_a_run_script(script: str, expected: tuple[str, ...]) -> None:
    assert user_networks(script) == expected


def test_each_network_has_sockets_and_filters_of_its_own() -> None:
    argv = filter_argv(Path("/run/m"), ("user.0", "lan"))
    assert argv[1] == "socket,id=pytest-nixos-net-in,path=/run/m/net-in.sock,server=on,wait=off"
    assert sum("netdev=user.0," in word for word in argv) == 2
    assert sum("netdev=lan," in word for word in argv) == 2
    assert "socket,id=pytest-nixos-net1-out,path=/run/m/net1-out.sock,server=on,wait=off" in argv
    ids = [part for word in argv for part in word.split(",") if part.startswith("id=")]
    assert len(ids) == len(set(ids)) == 8
    assert filter_argv(Path("/run/m"), ()) == ()
