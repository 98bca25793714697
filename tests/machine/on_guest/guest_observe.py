"""Every probe on a NixOS guest, held against the host config or another source in the guest.

Run by ``tests/machine/test_on_guest.py``, or by hand: ``pytest --nixos-flake REF#HOST <this
file>``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_nixos import HostConfig, Machine, observe
from pytest_nixos.observe.filesystems.mount import mounts
from pytest_nixos.observe.kernel import normalise_sysctl, sysctl_tree
from pytest_nixos.observe.systemd.unit import unit_files
from pytest_nixos.testinfra import NixosHost

DIRECTIVES: list[tuple[str, str, Callable[[observe.ProcessFacts], bool]]] = [
    ("NoNewPrivileges", "true", lambda facts: facts.no_new_privileges is True),
    ("ProtectSystem", "strict", lambda f: f.protect_system is observe.ProtectSystem.STRICT),
    ("ProtectHome", "true", lambda facts: facts.protect_home is observe.ProtectHome.YES),
    ("PrivateTmp", "true", lambda facts: facts.private_tmp),
    ("PrivateDevices", "true", lambda facts: facts.private_devices),
    ("ProtectKernelTunables", "true", lambda facts: facts.protect_kernel_tunables),
    ("ProtectKernelModules", "true", lambda facts: facts.protect_kernel_modules),
    ("ProtectControlGroups", "true", lambda facts: facts.protect_control_groups),
    ("ProtectProc", "invisible", lambda facts: facts.hides_processes),
    ("CapabilityBoundingSet", "", lambda facts: not facts.capabilities["bounding"]),
]


def service_names(config: HostConfig) -> list[str]:
    return [
        unit.name
        for unit in config.units.values()
        if unit.enabled and "multi-user.target" in unit.wanted_by and "@" not in unit.name
    ]


def test_all_probes_in_one_round_trip(
    nixos_machine: Machine,
    nixos_host_config: HostConfig,
    record_property: Callable[[str, object], None],
) -> None:
    names = service_names(nixos_host_config)
    probes: list[observe.Probe[object]] = [
        *(observe.sysctls(list(nixos_host_config.sysctls)), observe.units(names)),
        *(observe.failed_units(), observe.system_state(), observe.process_facts(names)),
        *(observe.sockets(), observe.firewall(), observe.swap(), observe.generations()),
        *(observe.files(["/etc/shadow"]), mounts()),
    ]
    started = time.monotonic()
    outputs = observe.collect(nixos_machine.run, probes)
    took_s = time.monotonic() - started
    record_property("milliseconds", round(took_s * 1000))
    assert list(outputs) == [probe.name for probe in probes]
    assert all(outputs[probe.name].stdout or probe.name == "failed-units" for probe in probes)


def test_sysctls(nixos_machine: Machine, nixos_host_config: HostConfig, host: NixosHost) -> None:
    keys = [*nixos_host_config.sysctls, "kernel.no_such_key"]
    values = observe.observe(nixos_machine.run, observe.sysctls(keys))
    assert set(values) == set(keys)
    assert values["kernel.no_such_key"] is None
    tree = observe.observe(nixos_machine.run, sysctl_tree("vm"))
    assert tree["vm.swappiness"] == host.check_output("cat /proc/sys/vm/swappiness")
    found = values.get("vm.swappiness", tree["vm.swappiness"])
    assert normalise_sysctl(found or "").isdecimal()


def test_units(nixos_machine: Machine, nixos_host_config: HostConfig, host: NixosHost) -> None:
    names = service_names(nixos_host_config)
    states = observe.observe(nixos_machine.run, observe.units([*names, "no-such", "getty@"]))
    assert set(states) == {*names, "no-such.service"}
    assert not states["no-such.service"].exists
    for name in names:
        active = host.run("systemctl is-active %s", name).stdout.strip() == "active"
        assert states[name].is_running is active, name
    files = observe.observe(nixos_machine.run, unit_files())
    assert files is not None
    assert set(names) <= set(files)
    assert observe.observe(nixos_machine.run, observe.failed_units()) is not None


def test_process_facts(
    nixos_machine: Machine, nixos_host_config: HostConfig, host: NixosHost
) -> None:
    names = service_names(nixos_host_config)
    facts = observe.observe(nixos_machine.run, observe.process_facts(names))
    assert any(facts.values())
    for name, found in facts.items():
        pid = host.service(name).systemd_properties.get("MainPID", "0")
        assert (found.pid if found else 0) == int(pid), name
        if found is None:
            continue
        declared = nixos_host_config.units[name]
        for directive, value, holds in DIRECTIVES:
            if declared.setting("Service", directive) == (value,):
                assert holds(found), (name, directive)
        if declared.setting("Service", "SystemCallFilter"):
            assert found.seccomp is observe.SeccompMode.FILTER, name


def test_exposure(nixos_machine: Machine, nixos_host_config: HostConfig) -> None:
    names = [n for n in service_names(nixos_host_config) if n.endswith(".service")][:5]
    found = observe.observe(nixos_machine.run, observe.exposure(names))
    assert found
    for exposure in found.values():
        assert 0.0 <= exposure.score <= 10.0
        assert exposure.items or exposure.score == 0.0


def test_firewall(nixos_machine: Machine, nixos_host_config: HostConfig) -> None:
    declared = nixos_host_config.firewall
    state = observe.observe(nixos_machine.run, observe.firewall())
    if not declared.enabled:
        pytest.skip("the host has no firewall")
    assert state.is_known
    assert state.is_active
    for family in ("ip", "ip6"):
        assert state.ruleset.refuses_by_default(family=family)
        for protocol, spans in (("tcp", declared.everywhere.tcp), ("udp", declared.everywhere.udp)):
            opened = state.ruleset.open_ports(protocol, family=family)
            ports = {p for span in opened for p in range(span.first, span.last + 1)}
            assert ports == {p for span in spans for p in range(span.first, span.last + 1)}
    assert set(state.ruleset.trusted_interfaces) == set(declared.trusted_interfaces)
    assert state.ruleset.accepts_ping is declared.allow_ping
    assert state.ruleset.has_reverse_path_filter


def test_generations(nixos_machine: Machine, host: NixosHost) -> None:
    state = observe.observe(nixos_machine.run, observe.generations())
    assert state.current == host.file("/run/current-system").linked_to
    assert state.current_version
    profile = host.file("/nix/var/nix/profiles/system")
    assert state.profile == (profile.linked_to if profile.exists else "")


def test_swap_and_memory(nixos_machine: Machine, host: NixosHost) -> None:
    state = observe.observe(nixos_machine.run, observe.swap())
    assert state.memory_bytes // 1024 == int(
        host.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo")
    )
    assert len(state.areas) == int(host.check_output("tail -n +2 /proc/swaps | wc -l"))


def test_sockets_and_their_units(nixos_machine: Machine) -> None:
    found = observe.observe(nixos_machine.run, observe.sockets(owners=True))
    for port in found.reachable_ports(observe.Protocol.TCP):
        units = found.units(observe.Protocol.TCP, port)
        assert units, f"no process owns port {port}"
        # A socket that systemd itself holds for a service belongs to init.scope.
        assert [u for u in units if not u.endswith((".service", ".scope"))] == [], found.owners


def test_http_reaches_what_listens(nixos_machine: Machine, host: NixosHost) -> None:
    if not host.exists("nc"):
        pytest.skip("the guest has no nc")
    answer = "printf 'HTTP/1.0 204 Fine\\r\\nX-It: y\\r\\n\\r\\n'"
    listen = f"{answer} | exec {host.find_command('nc')} -l -N 127.0.0.1 18555"
    run = "systemd-run --unit=pytest-nixos-http --service-type=exec /bin/sh -c %s"
    host.run_expect([0], run, listen)
    try:
        asked = observe.http(["http://127.0.0.1:18555/", "http://127.0.0.1:18556/"], timeout_s=5)
        found, nobody = observe.observe(nixos_machine.run, asked)
    finally:
        host.run("systemctl stop pytest-nixos-http; systemctl reset-failed")
    assert nobody.status is None
    assert nobody.failure
    assert (found.status, found.headers) == (204, {"x-it": "y"})


def test_files(nixos_machine: Machine) -> None:
    paths = ["/etc/os-release", "/etc/shadow", "/no/such/file"]
    release, shadow, missing = observe.observe(
        nixos_machine.run, observe.files(paths, contents=paths[:1])
    ).values()
    assert missing == ()
    assert "nixos" in release[0].content
    assert (shadow[0].owner, shadow[0].content) == ("root", "")
    assert int(shadow[0].mode, 8) & 0o007 == 0


def test_journal(nixos_machine: Machine) -> None:
    lines = observe.observe(nixos_machine.run, observe.journal("systemd-journald", lines=3))
    assert 1 <= len(lines) <= 3


def test_boot_times_over_the_bus_are_those_of_systemctl(nixos_machine: Machine) -> None:
    probe = observe.boot_time()
    by_bus = observe.collect(nixos_machine.run, [probe])[probe.name]
    assert by_bus.sections["answers"] and "units" not in by_bus.sections
    no_bridge = replace(probe, script=probe.script.replace("systemd-stdio-bridge", "no-bridge"))
    by_systemctl = observe.collect(nixos_machine.run, [no_bridge])[probe.name]
    assert by_systemctl.sections["units"]
    boot = probe.parse(by_bus)
    assert boot is not None and boot.critical_chain
    assert boot == probe.parse(by_systemctl)
