"""Where one interface decides, the verdict and the remedy name it."""

from __future__ import annotations

import datetime as dt

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.judging.remedy import remedy_text
from pytest_nixos.standards.load import load_catalogue
from tests.unit.standards.samples import host_config

CATALOGUE = load_catalogue()
HOST = host_config(sysctls={"net.ipv4.conf.all.send_redirects": "0"})


def judged(control: str, **values: str) -> Verdict:
    seen = {f"net.ipv4.conf.{name.replace('__', '.')}": value for name, value in values.items()}
    return judge(CATALOGUE.control(control), HOST, {"sysctl": seen}, BackendName.VM)


def test_an_interface_that_beats_all_is_found_and_mended() -> None:
    control = CATALOGUE.control("SYSCTL-041")
    assert control.title == "net.ipv4.conf.all.send_redirects is 0"
    right = judged("SYSCTL-041", all__send_redirects="0", eth0__send_redirects="0")
    assert right.outcome is Outcome.PASSED
    wrong = judged("SYSCTL-041", all__send_redirects="0", eth0__send_redirects="1")
    assert wrong.outcome is Outcome.FAILED
    assert "interface eth0" in wrong.reason
    text = remedy_text(
        control, HOST, observed=wrong.observed, reason=wrong.reason, today=dt.date(2026, 11, 29)
    )
    assert text == 'boot.kernel.sysctl."net.ipv4.conf.eth0.send_redirects" = 0;'


def test_what_is_wrong_for_all_is_mended_for_each_interface_too() -> None:
    control = CATALOGUE.control("SYSCTL-041")
    host = host_config()
    wrong = judged("SYSCTL-041", all__send_redirects="1", eth0__send_redirects="1")
    text = remedy_text(
        control, host, observed=wrong.observed, reason=wrong.reason, today=dt.date(2026, 11, 29)
    )
    line = 'boot.kernel.sysctl."net.ipv4.conf.all.send_redirects" = 0;'
    # The interface keeps the value that it appeared with, whatever becomes of that of all.
    assert text == f"{line}\n{line.replace('all', 'eth0')}"
