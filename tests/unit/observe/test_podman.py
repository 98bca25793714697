"""Containers as podman inspects them."""

from __future__ import annotations

import json

from pytest_nixos.observe.podman import PODMAN_FACTS


def test_podman_containers() -> None:
    document = [
        {
            "Name": "web",
            "HostConfig": {"Privileged": False, "NetworkMode": "host"},
            "Mounts": [{"Source": "/etc"}],
        }
    ]
    found = PODMAN_FACTS["containers"].parse(json.dumps(document))
    assert found["web"]["namespaces"] == ["private", "host", "private"]
    assert found["web"]["mounts"] == ["/etc"]
    assert PODMAN_FACTS["containers"].parse("oops") == {}
