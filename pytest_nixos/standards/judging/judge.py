"""The judge: one data control, one host, what was observed; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import CatalogueError
from pytest_nixos.findings import Outcome
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.declared_value import declared_value, redacted, value_in_machine
from pytest_nixos.standards.control.expectation import (
    SHOWN,
    NothingToCheckError,
    describe,
    mismatch,
)
from pytest_nixos.standards.control.model import (
    Control,
    DeclaredSpec,
    Expectation,
    Operator,
    Quantifier,
)
from pytest_nixos.standards.control.seen import EVERYBODY, EVERYBODY_ELSE, INTERFACE, Seen, Unseen
from pytest_nixos.standards.judging.applicability import inapplicable, is_falsified
from pytest_nixos.standards.judging.look import look
from pytest_nixos.standards.kinds import KINDS

__all__ = ["Verdict", "judge"]

Json = Any


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge says about one control.

    :param expected: what had to hold, in words.
    :param observed: what was found; ``{"machine": ..., "declared": ...}`` where both were judged.
    :param judged_on: a value of :class:`pytest_nixos.findings.JudgedOn`.
    """

    control: Control
    outcome: Outcome
    expected: str
    observed: Json
    judged_on: str
    reason: str


class _Judgement(msgspec.Struct, frozen=True):
    outcome: Outcome
    reason: str
    observed: Json = None


def judge(
    control: Control, host: HostConfig, observations: Mapping[str, object], place: BackendName
) -> Verdict:
    """Judge a data control, or say why it cannot be judged; what was not seen never passes.

    The running machine decides. A declared value that contradicts a machine which is right fails
    too: the next activation would bring it. Where the place falsifies the running value, the
    evaluated config decides.

    :param observations: parsed observations by kind; see :class:`pytest_nixos.standards.judging.look.Parsed`.
    :raises CatalogueError: if a Python check judges this control.
    """
    if control.check:
        raise CatalogueError(
            f"{control.id}: a Python check judges it, not the catalogue",
            remedy=f"write a test with the marker nixos_control({control.id!r})",
        )
    if control.judged_as is not None:
        reason = f"judged as {control.judged_as}"
        return _verdict(control, _Judgement(Outcome.NOT_APPLICABLE, reason), "nothing")
    if control.manual is not None:
        reason = f"judged by hand: {control.manual}"
        return _verdict(control, _Judgement(Outcome.NOT_APPLICABLE, reason), "nothing")
    if (why_not := inapplicable(control, host, place)) is not None:
        return _verdict(control, _Judgement(Outcome.NOT_APPLICABLE, why_not), "nothing")
    if control.observed is None:
        return _verdict(control, _judge_config(control, host), "config")
    if (falsified := _falsified(control, host, place)) is not None:
        return _judge_falsified(control, host, falsified)
    return _judge_machine(control, host, observations)


def _judge_machine(
    control: Control, host: HostConfig, observations: Mapping[str, object]
) -> Verdict:
    if control.observed is None or control.expect is None:
        raise CatalogueError(f"{control.id}: has no observation", remedy="mend its catalogue entry")
    judged_on = "config" if KINDS[control.observed.kind].host_side else "machine"
    sight = look(control.observed, observations, host)
    if isinstance(sight, Unseen):
        outcome = Outcome.FAILED if sight.applicable else Outcome.NOT_APPLICABLE
        judged_on = judged_on if sight.applicable else "nothing"
        return _verdict(control, _Judgement(outcome, sight.reason), judged_on)
    if control.expect.op is Operator.AS_DECLARED:
        return _judge_as_declared(control, host, sight)
    on_machine = _hold(control.expect, sight)
    if on_machine.outcome is Outcome.NOT_APPLICABLE:
        about = KINDS[control.observed.kind].about(control.observed.parameters)
        on_machine = replace(on_machine, reason=f"{on_machine.reason}: {about}")
    if control.declared is None:
        return _verdict(control, on_machine, judged_on)
    found = declared_value(host, control.declared)
    if not isinstance(found, Seen) or found.value is None:
        return _verdict(control, on_machine, judged_on)
    on_config = _hold(_config_expectation(control), found, control.declared)
    observed = {"machine": on_machine.observed, "declared": on_config.observed}
    where = "both" if judged_on == "machine" else judged_on
    if on_machine.outcome is Outcome.PASSED and on_config.outcome is Outcome.FAILED:
        reason = f"the machine is right, but {control.declared.path} {on_config.reason}"
        return _verdict(control, _Judgement(Outcome.FAILED, reason, observed), where)
    both = _Judgement(on_machine.outcome, on_machine.reason, observed)
    return _verdict(control, both, where)


def _judge_as_declared(control: Control, host: HostConfig, sight: Seen) -> Verdict:
    if control.declared is None:
        raise CatalogueError(f"{control.id}: declares nothing", remedy="mend its catalogue entry")
    found = declared_value(host, control.declared)
    if isinstance(found, Unseen) or found.value is None:
        reason = f"the host does not declare {control.declared.path}"
        return _verdict(control, _Judgement(Outcome.NOT_APPLICABLE, reason), "nothing")
    wanted = Expectation(op=Operator.EQ, value=found.value)
    held = _hold(wanted, sight)
    observed = {"machine": held.observed, "declared": found.value}
    verdict = _verdict(control, _Judgement(held.outcome, held.reason, observed), "both")
    return replace(verdict, expected=describe(wanted))


def _judge_falsified(control: Control, host: HostConfig, why: str) -> Verdict:
    if control.declared is None:
        reason = f"{why}, and the evaluated config does not say it"
        return _verdict(control, _Judgement(Outcome.NOT_APPLICABLE, reason), "nothing")
    on_config = _judge_config(control, host)
    reason = f"judged on the evaluated config, because {why}: {on_config.reason}"
    return _verdict(control, _Judgement(on_config.outcome, reason, on_config.observed), "config")


def _judge_config(control: Control, host: HostConfig) -> _Judgement:
    if control.declared is None:
        raise CatalogueError(f"{control.id}: declares nothing", remedy="mend its catalogue entry")
    found = declared_value(host, control.declared)
    if isinstance(found, Unseen):
        outcome = Outcome.FAILED if found.applicable else Outcome.NOT_APPLICABLE
        return _Judgement(outcome, found.reason)
    held = _hold(_config_expectation(control), found, control.declared)
    if held.outcome is Outcome.PASSED:
        return held
    # Members that are options name themselves.
    named = len(control.declared.options) > 1 and "*" not in control.declared.select
    about = (
        ""
        if named and _config_expectation(control).quantifier is not Quantifier.WHOLE
        else (f"{control.declared.path} ")
    )
    return _Judgement(held.outcome, f"{about}{held.reason}", held.observed)


def _falsified(control: Control, host: HostConfig, place: BackendName) -> str | None:
    """Say why the running value says nothing about the host, if so."""
    if is_falsified(control, host, place):
        return f"a {place.place} falsifies the running value"
    if control.declared is None or not any(o in host.changed for o in control.declared.options):
        return None
    if control.declared.fact is not None:
        return f"this machine was started with another value of {control.declared.path}"
    ours = declared_value(host, control.declared)
    theirs = value_in_machine(host, control.declared)
    if not isinstance(ours, Seen):
        return None
    expect = _config_expectation(control)
    same = _hold(expect, ours).outcome is _hold(expect, theirs).outcome
    return None if same else f"this machine was started with another {control.declared.path}"


def _hold(expect: Expectation, sight: Seen, declared: DeclaredSpec | None = None) -> _Judgement:
    """Hold a value, and each case in which it is another one, against an expectation."""
    first = _hold_one(expect, sight, declared)
    wrong = {
        case: held
        for case, value in sight.cases.items()
        if (held := _hold_one(expect, Seen(value), declared)).outcome is Outcome.FAILED
    }
    if first.outcome is Outcome.FAILED:
        return _with_interfaces(first, wrong)
    if not wrong:
        return first
    observed = {EVERYBODY_ELSE: first.observed, **{case: h.observed for case, h in wrong.items()}}
    told = "; ".join(f"for {case}: {held.reason}" for case, held in list(wrong.items())[:SHOWN])
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return _Judgement(Outcome.FAILED, told + more, observed)


def _with_interfaces(first: _Judgement, wrong: Mapping[str, _Judgement]) -> _Judgement:
    """Tell the interfaces beside a value for all of them that is wrong: each keeps its own, which
    was set when it appeared.
    """
    interfaces = {case: h.observed for case, h in wrong.items() if case.startswith(INTERFACE)}
    if not interfaces:
        return first
    return replace(first, observed={EVERYBODY: first.observed, **interfaces})


def _hold_one(expect: Expectation, sight: Seen, declared: DeclaredSpec | None = None) -> _Judgement:
    secret = declared is not None and declared.secret
    shown = redacted(sight.value) if secret else sight.value
    try:
        reason = mismatch(expect, shown)
    except NothingToCheckError:
        return _Judgement(Outcome.NOT_APPLICABLE, "nothing was there to check", shown)
    if reason is None:
        return _Judgement(Outcome.PASSED, "as expected", shown)
    return _Judgement(Outcome.FAILED, reason, shown)


def _config_expectation(control: Control) -> Expectation:
    own = control.declared.expect if control.declared is not None else None
    expect = own or control.expect
    if expect is None:
        raise CatalogueError(f"{control.id}: expects nothing", remedy="mend its catalogue entry")
    return expect


def _verdict(control: Control, judgement: _Judgement, judged_on: str) -> Verdict:
    expect = control.expect
    if judged_on == "config" and expect is not None:
        expect = _config_expectation(control)
    return Verdict(
        control=control,
        outcome=judgement.outcome,
        expected="" if expect is None else describe(expect),
        observed=judgement.observed,
        judged_on=judged_on,
        reason=judgement.reason,
    )
