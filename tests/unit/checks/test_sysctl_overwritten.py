"""Which units write a sysctl that is not as declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.sysctl.overwritten import writers_of
from pytest_nixos.observe.systemd import started_text
from tests.unit.standards.samples import host_config, sample_unit

KEY = "net.ipv4.conf.all.rp_filter"
PATH = KEY.replace(".", "/")


@pytest.mark.parametrize(
    ("line", "writes"),
    [
        (f"/bin/sysctl -w {KEY}=0", True),
        ("/bin/sh -c 'echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter'", True),
        ("/bin/sysctl -w net/ipv4/conf/all/rp_filter=0", True),
        (f"/bin/sysctl -w {KEY}2=0", False),
        (f"/bin/sysctl -w x.{KEY}=0", False),
        ("/bin/true", False),
        (f"/bin/sysctl -n {KEY}", False),
        (f"/bin/sysctl -q {KEY}=0", True),
        (f"/bin/sysctl -w vm.swappiness=1 '{KEY} = 0'", True),
        (f"/bin/sh -c 'sysctl {KEY} && x=0'", False),
        ("/bin/sh -c 'cat /proc/sys/net/ipv4/conf/all/rp_filter > /run/seen'", False),
        ("/bin/sh -c 'echo 0 | tee /proc/sys/net/ipv4/conf/all/rp_filter'", True),
        ("/bin/sh -c 'test $(cat /proc/sys/net/ipv4/conf/all/rp_filter) = 1'", False),
        ("/bin/dd if=/run/one of=/proc/sys/net/ipv4/conf/all/rp_filter", True),
        ("/bin/cp /run/one /proc/sys/net/ipv4/conf/all/rp_filter", True),
        ("/bin/cp /proc/sys/net/ipv4/conf/all/rp_filter /run/seen", False),
    ],
)
def test_a_line_that_writes_the_key(line: str, writes: bool) -> None:
    host = host_config(units={"tuner.service": sample_unit("tuner.service", ExecStart=(line,))})
    assert writers_of(KEY, host) == (("tuner.service",) if writes else ())


@pytest.mark.parametrize(
    ("content", "writes"),
    [
        (f"#!/bin/sh\nsysctl -w {KEY}=0\n", True),
        (f"#!/bin/sh\nsysctl -w \\\n  {KEY}=0\n", True),
        (f"#!/bin/sh\n# sysctl -w {KEY}=0 was here\nsysctl -n {KEY}\n", False),
        (f"#!/bin/sh\ntrue # sysctl -w {KEY}=0\n", False),
        (f"#!/bin/sh\nsysctl -n {KEY}\nx=0\n", False),
        ("#!/bin/sh\nprintf 0 > '/proc/sys/net/ipv4/conf/all/rp_filter'\n", True),
        (f"#!/usr/bin/python3\nopen('/proc/sys/{PATH}', 'w').write('0')\n", True),
        (f"#!/usr/bin/python3\nPath('/proc/sys/{PATH}').write_text('0')\n", True),
        (f"#!/usr/bin/python3\nopen('/proc/sys/{PATH}', 'r').read()\n", False),
        (f"#!/usr/bin/python3\nprint(open('/proc/sys/{PATH}').read(), 'w')\n", False),
        (f"\x7fELF {KEY}", False),
        ("#!/bin/sh\n", False),
    ],
)
def test_a_script_that_writes_the_key(
    content: str, writes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "tuner-start"
    script.write_text(content)
    host = host_config(
        units={"tuner.service": sample_unit("tuner.service", ExecStart=("/nix/store/x/bin/t -v",))}
    )
    monkeypatch.setattr(started_text, "Path", lambda name: script if name.endswith("/t") else None)
    assert bool(writers_of(KEY, host)) is writes


def test_a_script_that_is_not_here_is_passed_over() -> None:
    unit = sample_unit("tuner.service", ExecStart=("/nix/store/gone/bin/tuner",))
    assert writers_of(KEY, host_config(units={unit.name: unit})) == ()
