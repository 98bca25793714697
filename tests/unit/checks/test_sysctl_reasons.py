"""Why a declared sysctl is not in force, and what is told to mend it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from checks.sysctl import test_sysctl
from checks.sysctl.reasons import same_setting, why_missing, why_other
from checks.sysctl.test_sysctl import _judgeable
from pytest_nixos import Evidence, Observations, observe
from pytest_nixos.observe.sysctl_source import SysctlLine
from tests.unit.standards.samples import host_config

SWAP = "vm.swappiness"
ALL = "net.ipv4.conf.all.forwarding"


def line(by: str, key: str = SWAP, value: str = "1") -> SysctlLine:
    return SysctlLine(path=key.replace(".", "/"), value=value, by=f"/etc/sysctl.d/{by}.conf")


def other(*lines: SysctlLine, tmpfiles: tuple[SysctlLine, ...] = ()) -> str:
    sources = observe.SysctlSources(lines=lines, tmpfiles=tmpfiles)
    return why_other(SWAP, host=host_config(), sources=sources, refused=()).words


def test_a_later_file_is_named_and_an_earlier_one_is_not() -> None:
    ours = line("60-nixos", value="10")
    assert other(ours, line("99-own")) == "set to 1 by /etc/sysctl.d/99-own.conf"
    assert other(line("50-default"), ours) == ""
    glob = SysctlLine(path="vm/*", value="1", by="/etc/sysctl.d/99-own.conf")
    assert other(ours, glob) == ""


def test_a_line_of_tmpfiles_is_named() -> None:
    written = SysctlLine(path="vm/swappiness", value="1", by="/etc/tmpfiles.d/00-nixos.conf")
    assert "/etc/tmpfiles.d/00-nixos.conf" in other(tmpfiles=(written,))


def test_a_value_that_the_kernel_refuses_is_told_as_such() -> None:
    refused = observe.refused_sysctls(
        ["systemd-sysctl[9]: Couldn't write '4k' to 'net/core/somaxconn': Invalid argument"]
    )
    reason = why_other(
        "net.core.somaxconn", host=host_config(), sources=observe.SysctlSources(), refused=refused
    )
    assert reason.words == "the kernel refuses that value: Invalid argument"
    assert "does not take 4k" in reason.remedy


def test_a_key_that_came_too_late_names_the_module_that_brings_it() -> None:
    key = "net.netfilter.nf_conntrack_max"
    late = observe.refused_sysctls(
        [
            f"systemd-sysctl[9]: Couldn't write '262144' to '{key.replace('.', '/')}', ignoring: No such file or directory"
        ]
    )
    reason = why_other(key, host=host_config(), sources=observe.SysctlSources(), refused=late)
    assert reason.words == "the key was not there yet when systemd-sysctl.service ran"
    assert 'boot.kernelModules = [ "nf_conntrack" ];' in reason.remedy


def test_an_algorithm_that_the_kernel_has_not_is_told_as_such() -> None:
    key = "net.ipv4.tcp_congestion_control"
    said = f"Couldn't write 'brb' to '{key.replace('.', '/')}', ignoring: No such file or directory"
    found = observe.refused_sysctls([said])
    reason = why_other(key, host=host_config(), sources=observe.SysctlSources(), refused=found)
    assert reason.words == "the kernel knows no brb"
    assert 'boot.kernelModules = [ "tcp_brb" ];' in reason.remedy


def test_a_journal_that_is_lost_is_no_word_about_who_wrote_it() -> None:
    reason = why_other(
        SWAP, host=host_config(), sources=observe.SysctlSources(), refused=(), failed=True
    )
    assert "its journal is lost" in reason.words
    assert "after systemd-sysctl.service has set it" not in reason.remedy


class Guest:
    """Values, what files say, and a journal without a word."""

    def __init__(self, values: dict[str, str], sources: observe.SysctlSources) -> None:
        self.values, self.sources = values, sources

    def of(self, probe: Any) -> Any:
        seen = {"sysctl": self.values, "sysctl-sources": self.sources}
        return seen.get(probe.name, ())


def test_a_glob_touches_no_key_that_a_file_names_by_itself() -> None:
    glob = "net.ipv4.conf.*.rp_filter"
    values = {f"net.ipv4.conf.{name}.rp_filter": "2" for name in ("all", "eth0")}
    host = host_config(sysctls={glob: "1"})
    sources = observe.SysctlSources(by_name=frozenset({"net/ipv4/conf/all/rp_filter"}))
    with pytest.raises(AssertionError) as told:
        test_sysctl.test_declared_sysctls_are_in_force(
            host, "vm", cast("Observations", Guest(values, sources)), Evidence()
        )
    assert "eth0.rp_filter: declared 1, is 2" in str(told.value)
    assert "conf.all" not in str(told.value)


@pytest.mark.parametrize(
    ("key", "gap", "words", "remedy"),
    [
        (
            "net.ipv4.conf.all.acept_redirects",
            ("net/ipv4/conf/all", "acept_redirects", "", ("accept_redirects", "arp_filter")),
            "the kernel has net.ipv4.conf.all.accept_redirects",
            'boot.kernel.sysctl."net.ipv4.conf.all.accept_redirects" = 0;',
        ),
        (
            "net.ipv4.cof.all.rp_filter",
            ("net/ipv4", "cof", "all/rp_filter", ("conf", "neigh")),
            "the kernel has net.ipv4.conf.all.rp_filter",
            'boot.kernel.sysctl."net.ipv4.conf.all.rp_filter" = 0;',
        ),
        (
            "net.ipv4.conf.enp3so.rp_filter",
            ("net/ipv4/conf", "enp3so", "rp_filter", ("all", "default", "enp3s0", "lo")),
            "there is no interface enp3so",
            "(enp3s0)",
        ),
        (
            "net.bridge.bridge-nf-call-iptables",
            ("net", "bridge", "bridge-nf-call-iptables", ("core", "ipv4")),
            "",
            'boot.kernelModules = [ "br_netfilter" ];',
        ),
        ("vm.nothing_like_it", ("vm", "nothing_like_it", "", ("swappiness",)), "", "correct"),
    ],
)
def test_a_missing_key(
    key: str, gap: tuple[str, str, str, tuple[str, ...]], words: str, remedy: str
) -> None:
    above, missing, rest, names = gap
    found = observe.SysctlGap(above=above, missing=missing, rest=rest, names=names)
    reason = why_missing(key, "0", found)
    assert reason.words == words
    assert remedy in reason.remedy


def test_forwarding_that_nixos_declares_as_off_gives_way_to_ip_forward() -> None:
    both = {ALL: "0", "net.ipv4.ip_forward": "1"}
    assert same_setting(both) == {"net.ipv4.ip_forward": "1"}
    assert same_setting({ALL: "1", "net.ipv4.ip_forward": "0"}).keys() == both.keys()
    assert same_setting({ALL: "0", "net.ipv4.ip_forward": "0"}).keys() == both.keys()
    assert same_setting({ALL: "0"}) == {ALL: "0"}


def test_ip_forward_that_undoes_another_key_is_named() -> None:
    host = host_config(sysctls={ALL: "1", "net.ipv4.ip_forward": "0"})
    sources = observe.SysctlSources()
    assert "net.ipv4.ip_forward" in why_other(ALL, host=host, sources=sources, refused=()).words
    rp_filter = "net.ipv4.conf.all.rp_filter"
    assert why_other(rp_filter, host=host, sources=sources, refused=()).words == ""


def test_a_container_judges_what_is_its_own_alone() -> None:
    wanted = {
        "net.ipv4.conf.all.rp_filter": "1",
        "net.ipv4.conf.eth0.rp_filter": "1",
        "-net/ipv4/conf/all/log_martians": "1",
        "net.core.somaxconn": "4096",
        "net.ipv4.tcp_rmem": "1 2 3",
        "net.ipv4.route.flush": "1",
    }
    sysctls = {
        **wanted,
        "net.ipv6.conf.enp3s0.use_tempaddr": "0",
        "net/ipv4/conf/eth0.100/rp_filter": "1",
        "vm.swappiness": "1",
        "net.core.default_qdisc": "fq",
        "net.core.rmem_max": "7500000",
        "net.netfilter.nf_conntrack_max": "1000000",
        "net/ipv4/neigh/default/gc_thresh3": "4096",
        "net.ipv4.tcp_mem": "1 2 3",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    assert _judgeable(sysctls, "container") == wanted
    few = {"net.ipv4.ping_group_range": "0 1000"}
    assert _judgeable(few, "container") == few
    assert _judgeable(sysctls, "vm") == sysctls
