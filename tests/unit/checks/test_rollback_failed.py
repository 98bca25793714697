"""Units that fail while a switch is tried, and who made them fail."""

from __future__ import annotations

from checks.rollback.failed import FailedUnit, newly_failed, parse, parted, why_failed
from tests.unit.standards.samples import host_config, sample_unit

ANSWER = """\
== pytest-nixos unit logrotate.service
timer=@1764380000
journal=2026-11-29T02:13:20+0000 web logrotate[812]: error: bad file
journal=== pytest-nixos unit forged.service
== pytest-nixos unit web.service
journal=2026-11-29T02:13:21+0000 web systemd[1]: Failed to start Web.
== pytest-nixos unit old.service
timer=@1764370000
== pytest-nixos unit never.service
timer=n/a
"""


def test_the_answer_is_read_and_a_journal_forges_no_unit() -> None:
    found = parse(ANSWER)
    assert set(found) == {"logrotate.service", "web.service", "old.service", "never.service"}
    assert found["logrotate.service"].timer_s == 1764380000
    assert "bad file" in found["logrotate.service"].journal
    assert found["never.service"] == FailedUnit(timer_s=None, journal="")


def test_a_unit_that_its_timer_started_meanwhile_is_not_the_switchs_fault() -> None:
    failed = ["logrotate.service", "old.service", "unknown.service", "web.service"]
    blamed, timed = parted(failed, parse(ANSWER), 1764379990)
    assert timed == ["logrotate.service"]
    assert blamed == ["old.service", "unknown.service", "web.service"]
    # Without the guest's clock nothing is taken for a timer's.
    assert parted(failed, parse(ANSWER), 0) == (failed, [])


def test_why_it_failed_is_told() -> None:
    journal = "2026-11-29T02:13:21+0000 web systemd[1]: web.service: Main process exited, code=exited, status=203/EXEC"
    host = host_config(units={"web.service": sample_unit("web.service", ExecStart=("/bin/web",))})
    known = {"web.service": FailedUnit(timer_s=None, journal=journal)}
    failures = why_failed({"web.service", "silent.service"}, known, host)
    assert failures.words.startswith("silent.service, web.service (its program cannot be started)")
    assert "journalctl -b -u silent.service" in failures.remedy


def test_what_had_failed_before_is_nobodys_news() -> None:
    assert newly_failed({"failed": "a.service"}, {"failed": "a.service b.service"}) == ["b.service"]
