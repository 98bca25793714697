"""What else says something about a kernel parameter, as bash finds it here."""

from __future__ import annotations

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.sysctl_source import SysctlGap, sysctl_sources


def told(*fields: str) -> ProbeOutput:
    return ProbeOutput(stdout="\0".join((*fields, "")).encode(), exit_status=0)


def test_files_count_by_name_and_the_first_directory_wins() -> None:
    found = sysctl_sources(()).parse(
        told(
            *("S/etc/sysctl.d/60-nixos.conf", "vm.swappiness=10\n"),
            *("S/etc/sysctl.d/99-own.conf", "# net.x = 1\n; y = 2\nnet.ipv4.tcp_rfc1337 = 1"),
            *("S/usr/lib/sysctl.d/60-nixos.conf", "vm.swappiness=60\n"),
            *(
                "S/usr/lib/sysctl.d/50-default.conf",
                "-net.ipv4.conf.all.rp_filter\nkernel.sysrq = 16",
            ),
        )
    )
    assert {"net/ipv4/conf/all/rp_filter", "kernel/sysrq"} <= found.by_name
    assert [(line.path, line.value, line.by) for line in found.lines] == [
        ("kernel/sysrq", "16", "/usr/lib/sysctl.d/50-default.conf"),
        ("vm/swappiness", "10", "/etc/sysctl.d/60-nixos.conf"),
        ("net/ipv4/tcp_rfc1337", "1", "/etc/sysctl.d/99-own.conf"),
    ]


def test_lines_of_tmpfiles_that_write_are_told() -> None:
    text = "w /proc/sys/vm/swappiness - - - - 1\nd /proc/sys/net - - - - -\nr /proc/sys/x"
    found = sysctl_sources(()).parse(told("T/etc/tmpfiles.d/00-nixos.conf", text))
    assert [(line.path, line.value) for line in found.tmpfiles] == [("vm/swappiness", "1")]


def test_a_missing_key_is_told_with_what_is_there() -> None:
    key = "net.ipv4.conf.enp3s0.rp_filter"
    found = sysctl_sources((key,)).parse(
        told("G/proc/sys/net/ipv4/conf/enp3s0/rp_filter", "/proc/sys/net/ipv4/conf\nall\neth0")
    )
    gap = SysctlGap(
        above="net/ipv4/conf", missing="enp3s0", rest="rp_filter", names=("all", "eth0")
    )
    assert found.gaps == {key: gap}


def test_what_no_probe_prints_is_nothing() -> None:
    found = sysctl_sources(("a.b",)).parse(told("G/proc/sys/c", "x", "Qy", "", "", ""))
    assert not found.gaps and not found.lines and not found.tmpfiles
