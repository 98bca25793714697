"""What SBX-D03 advises: a service keeps what it is declared to need."""

from __future__ import annotations

from checks.sandboxing.less_exposed import less_exposed
from pytest_nixos.observe import Exposure
from pytest_nixos.observe.systemd.unit import ExposureItem
from tests.unit.standards.samples import sample_unit

WEAK = (
    *(
        "CapabilityBoundingSet=~CAP_SYS_ADMIN",
        "SystemCallFilter=~@mount",
        "RestrictNamespaces=~user",
    ),
    *(
        "PrivateDevices=",
        "ProtectClock=",
        "ProtectKernelTunables=",
        "NoNewPrivileges=",
        "IPAddressDeny=",
    ),
)
FOUND = Exposure(
    unit="web.service",
    score=8.6,
    rating="EXPOSED",
    items=tuple(ExposureItem(directive=d, description="", weight=0.1) for d in WEAK),
)


def told(**settings: tuple[str, ...]) -> str:
    return less_exposed(sample_unit("web.service", **settings), FOUND)


def test_a_service_with_an_account_needs_no_capability() -> None:
    text = told(User=("web",), ExecStart=("/bin/web",))
    assert text.startswith('systemd.services."web".serviceConfig = {')
    assert '  CapabilityBoundingSet = "";' in text
    assert '"~@privileged"' in text
    assert "  ProtectClock = true;" in text and "IPAddressDeny" not in text


def test_the_capabilities_that_a_service_is_given_stay() -> None:
    text = told(User=("web",), AmbientCapabilities=("CAP_NET_BIND_SERVICE CAP_SYS_TIME",))
    assert 'CapabilityBoundingSet = lib.mkForce [ "CAP_NET_BIND_SERVICE" "CAP_SYS_TIME" ];' in text
    assert "~@privileged" not in text and "ProtectClock" not in text
    assert "  PrivateDevices = true;" in text


def test_who_runs_as_root_is_asked_for_what_it_needs() -> None:
    for settings in (
        {},
        {"User": ("root",)},
        {"User": ("web",), "ExecStartPre": ("+/bin/chown web /srv",)},
        {"DynamicUser": ("false",)},
    ):
        text = told(**settings)
        assert "# It runs as root" in text, settings
        assert 'CapabilityBoundingSet = "";' not in text
        assert "~@privileged" not in text


def test_what_a_service_says_itself_is_left_to_it() -> None:
    text = told(
        DynamicUser=("yes",),
        CapabilityBoundingSet=("CAP_CHOWN",),
        SystemCallFilter=("@system-service",),
        DeviceAllow=("/dev/kvm rw",),
        NoNewPrivileges=("false",),
    )
    for word in ("CapabilityBoundingSet", "SystemCallFilter", "PrivateDevices", "NoNewPrivileges"):
        assert word not in text
