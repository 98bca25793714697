"""Controls: numbered requirements as data, each with what it fends off and how it is judged."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.findings import Severity
from pytest_nixos.subject import Subject

__all__ = [
    "STANDARDS",
    "Control",
    "DeclaredSpec",
    "Expectation",
    "Fill",
    "ObservedSpec",
    "Operator",
    "Quantifier",
    "Remedy",
    "Requirement",
    "Standard",
    "Suite",
]

Json = Any


class Operator(enum.Enum):
    """How a value is held against what is expected.

    Numbers that arrive as text compare as numbers; ``eq`` and ``in`` compare text and numbers
    alike.
    """

    EQ = "eq"
    NE = "ne"
    GE = "ge"
    LE = "le"
    GT = "gt"
    LT = "lt"
    BETWEEN = "between"
    IN = "in"
    NOT_IN = "not-in"
    CONTAINS = "contains"
    CONTAINS_ANY = "contains-any"
    CONTAINS_ALL = "contains-all"
    EXCLUDES = "excludes"
    SUBSET_OF = "subset-of"
    MATCHES = "matches"
    NOT_MATCHES = "not-matches"
    MODE_AT_MOST = "mode-at-most"
    PRESENT = "present"
    ABSENT = "absent"
    EMPTY = "empty"
    NOT_EMPTY = "not-empty"
    LENGTH = "length"
    FIELDS = "fields"
    ANY_OF = "any-of"
    ALL_OF = "all-of"
    AS_DECLARED = "as-declared"


class Quantifier(enum.Enum):
    """Whether an expectation is held against a value as a whole or against its members."""

    WHOLE = "whole"
    EACH = "each"
    ANY = "any"


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What has to hold for one value.

    :param value: what `op` compares with; a profile replaces it where `parameter` names one of its
        parameters.
    :param fields: for ``fields``: member name to what has to hold for it.
    :param alternatives: for ``any-of``: one of them has to hold; for ``all-of``: all of them.
    """

    op: Operator
    value: Json = None
    parameter: str | None = None
    quantifier: Quantifier = Quantifier.WHOLE
    fields: Mapping[str, Expectation] = msgspec.field(default_factory=dict)
    alternatives: tuple[Expectation, ...] = ()

    def nested(self) -> Iterator[Expectation]:
        """Yield this expectation and all that it holds."""
        yield self
        for inner in (*self.fields.values(), *self.alternatives):
            yield from inner.nested()

    def parameters(self) -> Mapping[str, Json]:
        """Return the parameters that it refers to, with their defaults."""
        return {e.parameter: e.value for e in self.nested() if e.parameter is not None}

    def with_parameters(self, parameters: Mapping[str, Json]) -> Expectation:
        """Return it with the values that a profile sets."""
        known = self.parameter is not None and self.parameter in parameters
        return replace(
            self,
            value=parameters[self.parameter] if known and self.parameter else self.value,
            fields={key: e.with_parameters(parameters) for key, e in self.fields.items()},
            alternatives=tuple(e.with_parameters(parameters) for e in self.alternatives),
        )


class ObservedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to look at on the running machine (or in the flake): a kind and its parameters.

    :param kind: a key of :data:`pytest_nixos.standards.kinds.KINDS`.
    """

    kind: str
    parameters: Mapping[str, Json] = msgspec.field(default_factory=dict)


class DeclaredSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Which option of the evaluated config says the same thing.

    :param options: option paths as written in a module; with more than one the value is a mapping
        by path, of those that the release has.
    :param fact: a key of :data:`pytest_nixos.standards.control.config_facts.CONFIG_FACTS`, in place of
        options.
    :param select: keys to follow inside the value; ``*`` stands for every member and yields a
        mapping.
    :param expect: replaces the control's own expectation where the option's shape differs from what
        runs.
    :param secret: whether the value itself must not reach a report; "(set)" stands for it then.
    """

    options: tuple[str, ...]
    fact: str | None = None
    select: tuple[str, ...] = ()
    expect: Expectation | None = None
    secret: bool = False

    @property
    def path(self) -> str:
        """Option path and selection, as a person would write it."""
        if self.fact is not None:
            return f"the host's {self.fact.replace('-', ' ')}"
        selection = "".join(f".{_quoted(key)}" for key in self.select)
        return ", ".join(f"{option}{selection}" for option in self.options)


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has to declare for a control to apply to it.

    :param reason: said when the host does not, for example "the host does not run sshd".
    """

    declared: DeclaredSpec
    expect: Expectation
    reason: str


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about a violation, on the releases and hosts where that text works.

    :param text: Nix text; ``<word>`` in it is filled from what was observed, ``"<every word>"``
        with all values.
    :param since: first NixOS release that has its options.
    :param until: last release that has them.
    :param goes_into: where it is pasted, if not into a NixOS module of the host.
    :param about: a regular expression: what was found wrong that the text mends, in place of the
        remedies that say nothing of it.
    :param when: what the host has to declare for the text to have an effect.
    """

    text: str
    since: str | None = None
    until: str | None = None
    goes_into: str | None = None
    about: str | None = None
    when: tuple[Requirement, ...] = ()


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """Where the values of one placeholder of a remedy come from; exactly one source.

    :param pattern: a regular expression; its first group in what was found wrong.
    :param reads: ``found`` (what was observed and does not hold) or ``reason`` (the finding's own
        sentence).
    :param option: an option of the host.
    :param table: a bundled table that maps what `pattern` finds to the value, see
        ``standards/data``.
    """

    pattern: str | None = None
    reads: str = "found"
    option: str | None = None
    table: str | None = None


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered requirement.

    :param threat: what can go wrong where it is violated.
    :param remedies: what to do about a violation, by release and host; the first that applies is
        given.
    :param fill: sources of the remedies' placeholders, beside those that need none.
    :param references: standard to clause numbers, for example ``{"stig": ("V-268160",)}``.
    :param disa_category: 1 to 3 where a STIG rule says so.
    :param since: first NixOS release to which it applies, for example ``24.05``.
    :param until: last release to which it applies.
    :param applies_to: places where it means anything.
    :param falsified_in: places whose running value says nothing about the host, so the config is
        judged.
    :param own_disks: what becomes of it in a VM with the disks that its host declares: ``judged``
        there, or ``falsified``, since the plugin made them; ``""`` where it says nothing of disks.
    :param homes: whether it is judged of a home of ``homeConfigurations``, whose machine is the
        plugin's own.
    :param requires: what the host has to declare.
    :param check: whether a Python check with the same id judges it.
    :param judged_on: whose word that check rests on, a value of
        :class:`pytest_nixos.findings.JudgedOn`.
    :param judged_as: id of the control that means the same and is judged in its place.
    :param manual: why no machine can judge it.
    :param blames: what is broken where it is violated (``unit:auditd.service``); it explains
        findings that rest on it.
    :param source: file that holds it.
    """

    id: str
    suite: str
    title: str
    severity: Severity
    threat: str
    remedies: tuple[Remedy, ...]
    fill: Mapping[str, Fill] = msgspec.field(default_factory=dict)
    references: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    disa_category: int | None = None
    since: str | None = None
    until: str | None = None
    applies_to: frozenset[BackendName] = EVERYWHERE
    falsified_in: frozenset[BackendName] = frozenset()
    own_disks: str = ""
    homes: bool = False
    requires: tuple[Requirement, ...] = ()
    observed: ObservedSpec | None = None
    declared: DeclaredSpec | None = None
    expect: Expectation | None = None
    check: bool = False
    judged_on: str = "machine"
    judged_as: str | None = None
    manual: str | None = None
    blames: tuple[Subject, ...] = ()
    note: str = ""
    source: Path | None = None

    @property
    def remedy(self) -> str:
        """The text for the newest release, with its placeholders."""
        return self.remedies[0].text

    @property
    def is_data(self) -> bool:
        """Whether the catalogue alone judges it."""
        return not self.check and self.manual is None and self.judged_as is None

    @property
    def judged_by(self) -> str:
        """How it is judged: ``alias``, ``check``, ``manual``, ``machine``, ``config`` or
        ``both``.
        """
        if self.judged_as is not None:
            return "alias"
        if self.manual is not None:
            return "manual"
        if self.check:
            return "check"
        if self.observed is None:
            return "config"
        return "machine" if self.declared is None else "both"

    def expectations(self) -> Iterator[Expectation]:
        """Yield everything that it expects, requirements left out."""
        for expect in (self.expect, self.declared.expect if self.declared else None):
            if expect is not None:
                yield from expect.nested()

    def parameters(self) -> Mapping[str, Json]:
        """Return the parameters that a profile can set, with their defaults."""
        return {e.parameter: e.value for e in self.expectations() if e.parameter is not None}

    def tuned(self, parameters: Mapping[str, Json], severity: Severity | None) -> Control:
        """Return it with a profile's parameters and severity."""
        declared = self.declared
        if declared is not None and declared.expect is not None:
            declared = replace(declared, expect=declared.expect.with_parameters(parameters))
        return replace(
            self,
            severity=self.severity if severity is None else severity,
            expect=None if self.expect is None else self.expect.with_parameters(parameters),
            declared=declared,
        )


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """A named group of controls, one catalogue file.

    :param description: one paragraph for its page.
    """

    name: str
    title: str
    description: str
    controls: tuple[Control, ...]
    source: Path


class Standard(msgspec.Struct, frozen=True, kw_only=True):
    """A published document that controls refer to.

    :param key: name under ``references``.
    :param clause: what its numbers are called.
    """

    key: str
    title: str
    clause: str


STANDARDS: Mapping[str, Standard] = {
    standard.key: standard
    for standard in (
        Standard(key="stig", title="DISA Anduril NixOS STIG V1R2", clause="rule"),
        Standard(key="anssi", title="ANSSI-BP-028 v2.0", clause="recommendation"),
        Standard(key="cis", title="CIS Debian 13 Benchmark 1.0.0 (numbers only)", clause="number"),
        Standard(key="hipaa", title="HIPAA Security Rule, 45 CFR 164", clause="paragraph"),
        Standard(key="nist", title="NIST SP 800-53 Rev. 5", clause="control"),
        Standard(key="cis-controls", title="CIS Controls v8", clause="safeguard"),
        Standard(key="iso27001", title="ISO/IEC 27001:2022 Annex A", clause="control"),
        Standard(key="pci-dss", title="PCI DSS v4.0.1", clause="requirement"),
        Standard(key="nis2", title="NIS2, Directive (EU) 2022/2555", clause="article"),
        Standard(key="dora", title="DORA, Regulation (EU) 2022/2554", clause="article"),
        Standard(key="kspp", title="Kernel Self Protection Project", clause="recommendation"),
        Standard(key="lynis", title="Lynis", clause="test"),
        Standard(
            key="requirement", title="Requirements of this project's users", clause="requirement"
        ),
        Standard(key="khc", title="kernel-hardening-checker", clause="check"),
        Standard(key="nix-mineral", title="nix-mineral", clause="setting"),
        Standard(key="nixpkgs-hardened", title="nixpkgs profiles/hardened.nix", clause="setting"),
        Standard(key="systemd", title="systemd-analyze security", clause="directive"),
        Standard(key="flake-checker", title="Determinate Systems flake-checker", clause="rule"),
        Standard(key="nats", title="NATS documentation", clause="page"),
        Standard(key="project", title="Original to this catalogue", clause="note"),
    )
}


def _quoted(key: str) -> str:
    return key if key == "*" or key.replace("-", "").replace("_", "").isalnum() else f'"{key}"'
