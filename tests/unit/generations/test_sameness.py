"""A system after a switch, held against the same one after a boot."""

from __future__ import annotations

from pytest_nixos.generations.sameness import Difference, SystemState, differences
from pytest_nixos.observe.base import ProbeOutput

SEEN = {
    "units": ["a.service\tactive (running)", "gone.service\tinactive (dead)", "x.mount\tactive"],
    "starts": ["a.service\t12 100"],
    "environment": ["a.service PATH\t/bin", "a.service INVOCATION_ID\t1"],
    "programs": ["a.service\t/nix/store/a"],
    "files": ["hosts\t/nix/store/h", "machine-id\t444 root:root 1"],
    "users": ["root\tx:0:0::/root:/bin/sh"],
    "groups": ["wheel\tx:1:"],
    "sysctls": ["net/ipv4/ip_forward\t0", "kernel/random/uuid\t1"],
    "filter": ["inet nixos-fw input 1\ttcp dport 22 accept"],
    "mounts": ["/\text4 rw", "/run/user/0\ttmpfs rw"],
    "sockets": ["tcp 0.0.0.0:22\tLISTEN", "udp 0.0.0.0:41234\tUNCONN"],
    "ports": ["32768\t60999"],
    "complete": [],
}


def state(**changed: list[str] | None) -> SystemState:
    """Return what was seen, with other lines in some parts."""
    parts = {title: lines for title, lines in {**SEEN, **changed}.items() if lines is not None}
    text = "".join(f"\nMARK={t}\n" + "".join(f"{line}\n" for line in v) for t, v in parts.items())
    output = ProbeOutput(stdout=text.encode(), exit_status=0, mark="MARK")
    return SystemState.parse(output)


def found(**changed: list[str]) -> list[Difference]:
    return list(differences(state(), state(**changed)))


def test_the_same_system_is_the_same() -> None:
    assert state().is_whole
    assert found() == []


def test_an_answer_that_ends_early_is_not_whole() -> None:
    assert not state(complete=None).is_whole


def test_each_aspect_is_told_with_its_reason() -> None:
    cases = {
        "units": (["a.service\tinactive (dead)"], "a.service", "nothing wants it"),
        "environment": (["a.service PATH\t/sbin"], "a.service PATH", "earlier generation gave it"),
        "programs": (["a.service\t/nix/store/b"], "a.service", "program of an earlier generation"),
        "files": (["hosts\t/nix/store/other"], "hosts", "makes of it at the boot"),
        "users": (["root\tx:0:0::/:/bin/sh"], "root", "other fields"),
        "groups": (["wheel\tx:1:alice"], "group wheel", "other fields"),
        "sysctls": (["net/ipv4/ip_forward\t1"], "net/ipv4/ip_forward", "takes nothing back"),
        "filter": ([], "inet nixos-fw input 1", "does not load at the boot"),
        "mounts": (["/\text4 ro"], "/", "mounted otherwise"),
        "sockets": ([], "tcp 0.0.0.0:22", "still listens"),
    }
    for title, (lines, item, words) in cases.items():
        [one] = found(**{title: lines})
        assert (one.item, words in one.reason, one.by_design) == (item, True, False), str(one)


def test_what_each_boot_makes_anew_is_no_difference() -> None:
    assert found(environment=["a.service PATH\t/bin", "a.service INVOCATION_ID\t2"]) == []
    assert found(files=["hosts\t/nix/store/h", "machine-id\t444 root:root 2"]) == []
    assert found(sysctls=["net/ipv4/ip_forward\t0", "kernel/random/uuid\t2"]) == []
    assert found(sockets=["tcp 0.0.0.0:22\tLISTEN", "udp 0.0.0.0:50000\tUNCONN"]) == []
    assert found(mounts=["/\text4 rw"]) == []


def test_a_variable_that_is_gone_is_told_of_a_service_that_runs_in_both() -> None:
    [one] = found(environment=["a.service HOME\t/root", "a.service PATH\t/bin"])
    assert (one.item, one.switched, one.booted) == ("a.service HOME", None, "/root")
    assert found(environment=["b.service PATH\t/bin"]) == []


def test_units_that_come_and_go_are_left_out() -> None:
    more = [*SEEN["units"], "new.service\tinactive (dead)", "late.service\tactivating (start)"]
    assert found(units=more) == []
    [one] = found(units=[*SEEN["units"], "new.service\tactive (running)"])
    assert "did not start it" in one.reason


def test_what_nixos_leaves_to_the_next_boot_is_told_as_that() -> None:
    before = state(environment=["dbus.service PATH\t/old"])
    [one] = differences(before, state(environment=["dbus.service PATH\t/new"]))
    assert one.by_design and "by design" in str(one)


def test_limits_that_the_kernel_takes_from_free_memory_may_differ_a_little_between_boots() -> None:
    # Seen between two boots of one generation in a VM.
    names = ["kernel/threads-max", "user/max_net_namespaces", "vm/user_reserve_kbytes"]
    many = "net/ipv4/tcp_mem"
    one = [*(f"{name}\t5662" for name in names), f"{many}\t100 200\t300", "net/ipv4/x\t100"]
    two = [*(f"{name}\t5640" for name in names), f"{many}\t100 201\t299", "net/ipv4/x\t101"]
    far = [*(f"{name}\t9000" for name in names), f"{many}\t100 200", "net/ipv4/x\t100"]

    def told(*lines: list[str]) -> list[str]:
        before, after = (state(sysctls=part) for part in lines)
        return [difference.item for difference in differences(before, after)]

    assert told(one, two) == ["net/ipv4/x"]
    assert told(one, far) == [names[0], many, *names[1:]]
