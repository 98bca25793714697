"""Controls in words: what the command line lists and explains, and what the documentation is
made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.findings import JudgedOn
from pytest_nixos.standards.control.expectation import describe
from pytest_nixos.standards.control.model import STANDARDS, Control, Remedy
from pytest_nixos.standards.frameworks import frameworks
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import Catalogue

__all__ = [
    "explain",
    "how_judged",
    "list_controls",
    "reference_lines",
    "remedy_scope",
    "whose_word",
]


def list_controls(controls: Iterable[Control]) -> str:
    """Return one line a control: id, severity, how it is judged, title."""
    rows = [(c.id, c.severity.name, c.judged_by, c.title) for c in controls]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]
        )
        for row in rows
    )


def explain(control: Control, catalogue: Catalogue | None = None) -> str:
    """Return everything there is to say about one control, as plain text.

    :param catalogue: names the control that is judged in its place, where there is one.
    """
    other = ""
    if control.judged_as is not None and catalogue is not None:
        other = f" ({catalogue.control(control.judged_as).title})"
    parts = [
        f"{control.id}  {control.title}",
        f"{control.severity.name} in suite {control.suite}",
        "",
        f"Threat: {control.threat}",
        "",
        "How it is judged:",
        *(f"  {line}{other}" for line in how_judged(control)),
        "",
        "Remedy:",
        *_remedy_lines(control),
    ]
    if control.note:
        parts += ["", f"Note: {control.note}"]
    if lines := reference_lines(control):
        parts += ["", "References:", *(f"  {line}" for line in lines)]
    if control.source is not None:
        parts += ["", f"Defined in {control.source}"]
    return "\n".join(parts)


def remedy_scope(remedy: Remedy) -> str:
    """Say for which releases and hosts a remedy is, ``""`` for all."""
    parts = [
        f"from NixOS {remedy.since} on" if remedy.since else "",
        f"up to NixOS {remedy.until}" if remedy.until else "",
        *(
            f"where {condition.declared.path} is {describe(condition.expect)}"
            for condition in remedy.when
        ),
        f"goes into {remedy.goes_into}" if remedy.goes_into else "",
        f"about what matches {remedy.about}" if remedy.about else "",
    ]
    return ", ".join(part for part in parts if part)


def _remedy_lines(control: Control) -> list[str]:
    lines = []
    for remedy in control.remedies:
        if scope := remedy_scope(remedy):
            lines.append(f"  {scope}:")
        lines += [f"  {line}".rstrip() for line in remedy.text.splitlines()]
    return lines


def how_judged(control: Control) -> list[str]:
    """Say in sentences how a control is judged."""
    if control.judged_as is not None:
        return [f"Judged as {control.judged_as}, which means the same."]
    if control.manual is not None:
        return [f"By hand, because {control.manual}."]
    sentences = _data_sentences(control)
    if control.check:
        sentences = ["By a Python check of the same id."]
    word = whose_word(control)
    sentences.append(f"A verdict rests on {word.words}.")
    return [*sentences, *_limits(control)]


def whose_word(control: Control) -> JudgedOn:
    """Return whose word a verdict about a control rests on, where nothing is falsified."""
    if not control.is_data:
        return JudgedOn(control.judged_on) if control.check else JudgedOn.NOTHING
    if control.observed is None or KINDS[control.observed.kind].host_side:
        return JudgedOn.CONFIG
    return JudgedOn.MACHINE if control.declared is None else JudgedOn.BOTH


def reference_lines(control: Control) -> list[str]:
    """Return one line a standard that the control refers to."""
    lines = [
        f"{'gives evidence for ' if key in frameworks() else ''}{STANDARDS[key].title}: {', '.join(clauses)}"
        for key, clauses in control.references.items()
        if key in STANDARDS
    ]
    if control.disa_category is not None:
        lines.append(f"DISA category {'I' * control.disa_category}")
    return lines


def _data_sentences(control: Control) -> list[str]:
    sentences = []
    expected = "" if control.expect is None else describe(control.expect)
    if control.observed is not None:
        kind = KINDS[control.observed.kind]
        where = "On the host machine" if kind.host_side else "On the machine"
        asked = _parameters(control.observed.parameters)
        sentences.append(f"{where}: {kind.reads}{asked}; expected: {expected}.")
    if control.declared is not None:
        wanted = control.declared.expect
        held = f"; expected: {describe(wanted)}" if wanted is not None else ""
        if control.observed is None and wanted is None:
            held = f"; expected: {expected}"
        sentences.append(f"On the evaluated config: {control.declared.path}{held}.")
    if names := sorted(control.parameters()):
        sentences.append(f"A profile can set: {', '.join(names)}.")
    return sentences


def _limits(control: Control) -> list[str]:
    sentences = []
    if control.falsified_in:
        places = _places(control.falsified_in)
        config = "the evaluated config is judged" if control.declared else "it is not applicable"
        sentences.append(f"In {places} the running value is not the host's own, so {config}.")
    if control.own_disks == "judged":
        sentences.append(
            "A VM with the host's own disks (`--nixos-disks declared`) is judged itself."
        )
    if control.own_disks == "falsified":
        sentences.append(
            "Not applicable in a VM with disks as the host declares them (`--nixos-disks declared`): they are made for the run."
        )
    if control.homes:
        sentences.append("Judged of the homes of a flake's `homeConfigurations` too.")
    if control.applies_to != EVERYWHERE:
        sentences.append(f"Applies to: {_places(control.applies_to)}.")
    if control.since is not None:
        sentences.append(f"Applies from NixOS {control.since} on.")
    if control.until is not None:
        sentences.append(f"Applies up to NixOS {control.until}.")
    sentences += [f"Not applicable where {r.reason}." for r in control.requires]
    return sentences


def _places(places: Iterable[BackendName]) -> str:
    return ", ".join(sorted(place.place for place in places))


def _parameters(parameters: object) -> str:
    if not isinstance(parameters, dict) or not parameters:
        return ""
    return f" ({'; '.join(f'{key} {_shown(value)}' for key, value in parameters.items())})"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(str(item) for item in value)
    return json.dumps(value)
