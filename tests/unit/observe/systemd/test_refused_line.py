"""What programs of systemd refused of their configuration, as journalctl prints it."""

from __future__ import annotations

import json

import pytest

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.systemd.refused_line import (
    RefusedLine,
    RefusedLines,
    refused_lines,
    refused_on_console,
)

RULES = "/etc/tmpfiles.d/00-nixos.conf"


def entry(file: str, line: int, text: str, priority: int = 3) -> str:
    fields = {"CONFIG_FILE": file, "CONFIG_LINE": str(line), "PRIORITY": str(priority)}
    return json.dumps({**fields, "MESSAGE": f"{file}:{line}: {text}"})


def read(*entries: str, kernel: str = "", status: int = 0) -> RefusedLines:
    text = "=journal\n" + "\n".join(entries) + f"\n=kernel\n{kernel}\n"
    return refused_lines().parse(ProbeOutput(stdout=text.encode(), exit_status=status))


def test_a_line_that_three_runs_refuse_is_told_once() -> None:
    said = entry(RULES, 4, "Failed to resolve user 'nobody-here': No such process")
    seen = read(said, said, said)
    assert seen.answered
    assert [str(line) for line in seen.lines] == [
        f"{RULES}:4: Failed to resolve user 'nobody-here': No such process"
    ]


@pytest.mark.parametrize(
    "said",
    [
        entry(RULES, 9, "Duplicate line for path", priority=5),
        entry("/etc/systemd/system/web.service", 3, "Unknown key name"),
        entry("/etc/systemd/system/web.service.d/overrides.conf", 3, "Unknown key name"),
        entry("/nix/store/eee-systemd/example/tmpfiles.d/x.conf", 3, "Unknown command type"),
        "not JSON",
        "[1]",
        "{}",
    ],
)
def test_what_is_no_refusal_of_the_hosts_configuration(said: str) -> None:
    assert read(said).lines == ()


def test_a_journal_that_does_not_answer_is_no_pass() -> None:
    assert not read(status=3).answered


def test_what_systemd_said_before_there_was_a_journal() -> None:
    said = "systemd[1]: /etc/systemd/system.conf:4: Unknown key 'DefaultTimeout' in section [Manager], ignoring."
    of_unit = "systemd[1]: /etc/systemd/system/a.service.d/overrides.conf:4: Unknown key"
    (line,) = refused_on_console([f"[    2.1] {said}", of_unit, "login:"])
    assert (line.file, line.line) == ("/etc/systemd/system.conf", 4)
    assert read(kernel=said).lines == (line,)


def journald(*settings: str, kernel: str = "") -> list[str]:
    text = "\n".join(
        ["=journal", "=kernel", kernel, "=/etc/systemd/journald.conf", "[Journal]", *settings]
    )
    seen = refused_lines().parse(ProbeOutput(stdout=text.encode(), exit_status=0))
    return [str(line) for line in seen.lines]


@pytest.mark.parametrize(
    "setting",
    [
        "Storage=persistant",
        "SystemMaxUse=1 gigabyte",
        "MaxRetentionSec=1mnth",
        "MaxRetentionSec=forever",
        "RateLimitBurst=many",
        "ForwardToSyslog=maybe",
        "MaxLevelStore=warn",
    ],
)
def test_a_value_that_journald_refuses_is_told_though_journald_cannot(setting: str) -> None:
    (told,) = journald("Seal=yes", setting)
    assert told.startswith(f"/etc/systemd/journald.conf:3: {setting} is n")


def test_values_that_journald_takes_are_not_told() -> None:
    assert not journald(
        *(
            "Storage=persistent",
            "SystemMaxUse=1.5G",
            "SystemKeepFree=4G 500M",
            "RuntimeMaxUse=100000",
        ),
        *("MaxRetentionSec=1month", "MaxFileSec=1 week 2d", "SyncIntervalSec=0", "SystemMaxUse="),
        *("RateLimitIntervalSec=30s", "MaxFileSec=infinity", "Seal=On", "MaxLevelStore=warning"),
        *("# Storage=persistant", "NoSuchKey=x", "[Other]", "Storage=persistant"),
    )


def test_what_journald_said_itself_is_not_told_twice() -> None:
    said = "systemd-journald[9]: /etc/systemd/journald.conf:2: Failed to parse Storage=x, ignoring"
    assert len(journald("Storage=x", kernel=said)) == 1


def test_addresses_that_are_none_are_told() -> None:
    hosts = [
        "127.0.0.1 localhost",
        "192.168.1.300 nas.lan nas # the store",
        "# 1.2.3 x",
        "",
        "::1 b",
    ]
    servers = [
        "nameserver 1.1.1.1",
        "nameserver 1.1.1.1.1",
        "search 1.2.3",
        "nameserver fe80::1%eth0",
    ]
    parts = ["=journal", "=kernel", "=/etc/hosts", *hosts, "=/etc/resolv.conf", *servers]
    output = ProbeOutput(stdout="\n".join(parts).encode(), exit_status=0)
    assert [str(line) for line in refused_lines().parse(output).lines] == [
        "/etc/hosts:2: 192.168.1.300 is no address: nas.lan, nas has none by this line",
        "/etc/resolv.conf:2: 1.1.1.1.1 is no address, and no name server is asked for it",
    ]


def test_jobs_that_cron_cannot_read() -> None:
    parts = ["=journal", "=kernel", "=/etc/crontab", "SHELL=/bin/sh", "0 25 * * * root true"]
    output = ProbeOutput(stdout="\n".join(parts).encode(), exit_status=0)
    (line,) = refused_lines().parse(output).lines
    assert str(line) == "/etc/crontab:2: 25 is no hour"
    assert line.option == "services.cron.systemCronJobs"


MODULES = "/etc/modules-load.d/nixos.conf:3:br-netfiltr"
SYSFS = (
    "/etc/tmpfiles.d/00-nixos.conf:7:w /sys/kernel/mm/transparent_hugepage/enabled - - - - allways"
)
STEP = "/srv/app (owned by app) → /srv/app/data (owned by root)"
WAY = f"unsafe path transition {STEP}"
UNSAFE = "/etc/tmpfiles.d/00-nixos.conf:8:d /srv/app/data/cache 0750 root root -"


@pytest.mark.parametrize(
    ("said", "rule", "told"),
    [
        (
            "Failed to find module 'br_netfiltr'",
            MODULES,
            "/etc/modules-load.d/nixos.conf:3: no kernel module is called br_netfiltr",
        ),
        (
            "Module 'br_netfiltr' is deny-listed (by kmod)",
            MODULES,
            "/etc/modules-load.d/nixos.conf:3: br_netfiltr is among boot.blacklistedKernelModules, and not loaded",
        ),
        ("Failed to insert module 'br_netfiltr': Operation not supported", MODULES, ""),
        ("Failed to find module 'another'", MODULES, ""),
        (
            'Failed to write file "/sys/kernel/mm/transparent_hugepage/enabled": Invalid argument',
            SYSFS,
            "/etc/tmpfiles.d/00-nixos.conf:7: /sys/kernel/mm/transparent_hugepage/enabled does not take that value",
        ),
        (
            'Failed to write file "/sys/kernel/mm/transparent_hugepage/enabled": Read-only file system',
            SYSFS,
            "",
        ),
        (
            f"Detected {WAY} during canonicalization of srv/app/data/cache.",
            UNSAFE,
            f"/etc/tmpfiles.d/00-nixos.conf:8: not done, since {STEP} is an unsafe way to it",
        ),
        (
            f"Detected {WAY} during canonicalization of srv/app/data/cache.".replace(
                "by app", "by nobody"
            ),
            UNSAFE,
            "",
        ),
    ],
)
def test_what_was_read_and_not_done_is_told_by_its_line(said: str, rule: str, told: str) -> None:
    parts = ["=journal", "=kernel", "=said", said, said, "=lines", rule, "junk"]
    output = ProbeOutput(stdout="\n".join(parts).encode(), exit_status=0)
    assert [str(line) for line in refused_lines().parse(output).lines] == ([told] if told else [])


@pytest.mark.parametrize(
    ("file", "option"),
    [
        ("/etc/systemd/network/20-mgmt.network", 'systemd.network.networks."20-mgmt"'),
        ("/etc/systemd/network/30-br0.netdev", 'systemd.network.netdevs."30-br0"'),
        ("/etc/systemd/logind.conf", "services.logind"),
        ("/etc/tmpfiles.d/00-nixos.conf", "systemd.tmpfiles"),
        ("/etc/modules-load.d/nixos.conf", "boot.kernelModules"),
        ("/etc/other.conf", ""),
    ],
)
def test_the_option_that_writes_a_file_is_known(file: str, option: str) -> None:
    assert RefusedLine(file, 1, "").option == option


def test_a_line_of_an_environment_file_is_told_without_its_value() -> None:
    said = (
        "app.service: Ignoring invalid environment assignment 'export TOKEN=hunter2': /run/app.env"
    )
    text = f"=journal\n=variables\n{said}\nStarted app.service.\n"
    (line,) = refused_lines().parse(ProbeOutput(stdout=text.encode(), exit_status=0)).lines
    assert str(line) == (
        "/run/app.env: app.service goes without 'export TOKEN=': an assignment has no export before it"
    )
    assert line.option == 'systemd.services."app".serviceConfig.EnvironmentFile'


def passed_over(**parts: str) -> list[str]:
    text = "=journal\n" + "".join(f"={title}\n{said}\n" for title, said in parts.items())
    seen = refused_lines().parse(ProbeOutput(stdout=text.encode(), exit_status=0))
    return [str(line) for line in seen.lines]


NETWORKS = "/etc/systemd/network"


def test_a_device_that_no_file_makes_is_told_with_the_line_that_names_it() -> None:
    assert passed_over(
        # As networkd of systemd 257 says.
        said=f"""Failed to increase receive buffer size for general netlink socket, ignoring: Operation not permitted
{NETWORKS}/10-lan.network: vlna20 NetDev could not be found, ignoring assignment.
{NETWORKS}/20-br0.network: No valid settings found in the [Match] section, ignoring file.
NetDev without Name= configured in "{NETWORKS}/20-bond0.netdev", ignoring.
vlan30: VLAN without valid Id (65535) configured in {NETWORKS}/20-vlan30.netdev.
eth0: found matching network '{NETWORKS}/10-lan.network', based on potentially unpredictable interface name.
eth0: Configuring with {NETWORKS}/10-lan.network.""",
        lines=f"{NETWORKS}/10-lan.network:2:Name=eth0\n{NETWORKS}/10-lan.network:6:VLAN=vlan10 vlna20",
    ) == [
        f"{NETWORKS}/10-lan.network:6: vlna20 NetDev could not be found, ignoring assignment.",
        f"{NETWORKS}/20-bond0.netdev:1: NetDev without Name=",
        f"{NETWORKS}/20-br0.network:1: No valid settings found in the [Match] section, ignoring file.",
        f"{NETWORKS}/20-vlan30.netdev:1: vlan30: VLAN without valid Id (65535)",
    ]


def test_parameters_that_the_kernel_does_not_know_are_told() -> None:
    modprobe = "/etc/modprobe.d/nixos.conf"
    assert passed_over(
        kernel="""Unknown kernel command line parameters "splash mitigatons=off regInfo=/nix/store/x", will be passed to user space.
dummy: unknown parameter 'numdumies' ignored
i915: unknown parameter 'enable_fbcc' ignored""",
        lines=f"{modprobe}:3:options dummy numdummies=1\n{modprobe}:4:options dummy numdumies=2",
    ) == [
        f"{modprobe}:4: numdumies is no parameter of the module dummy, and ignored",
        "/proc/cmdline:1: i915.enable_fbcc is no parameter of the module i915",
        "/proc/cmdline:1: mitigatons=off is no parameter that the kernel knows",
    ]


def test_a_parameter_that_only_a_test_machine_has_is_not_the_hosts() -> None:
    own = RefusedLine("/proc/cmdline", 1, "mitigatons=off is no parameter that the kernel knows")
    assert own.is_of(["quiet", "mitigatons=off"])
    assert not own.is_of(["mitigations=off"])
    assert RefusedLine(RULES, 1, "x").is_of([])


def test_a_line_of_modprobe_that_is_none_is_told() -> None:
    modprobe = "/etc/modprobe.d/nixos.conf"
    lines = [
        "blacklist pcspkr",
        "blaklist pcspkr",
        "install x \\",
        "  /bin/true",
        "softdep a pre: b",
    ]
    assert passed_over(lines="\n".join(f"{modprobe}:{n}:{s}" for n, s in enumerate(lines, 1))) == [
        f"{modprobe}:2: blaklist is no command of modprobe.d, and left out"
    ]


def test_lines_of_udevs_rules_that_the_host_writes_are_told() -> None:
    rules = "/etc/udev/rules.d/99-local.rules"
    # As udevd of systemd 257 says, for each of its two starts.
    said = f"""{rules}:1 Unknown group 'dialuot', ignoring.
/etc/udev/rules.d/60-tpm-udev.rules:3 Unknown user 'tss', ignoring.
{rules}:3 Invalid key 'SUBSYTEM'.
{rules}:1 Unknown group 'dialuot', ignoring."""
    assert passed_over(said=said) == [
        f"{rules}:1: Unknown group 'dialuot', ignoring.",
        f"{rules}:3: Invalid key 'SUBSYTEM'.",
    ]
    assert RefusedLine(rules, 1, "x").option == "services.udev.extraRules"
