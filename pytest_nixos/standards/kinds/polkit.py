"""The kind about polkit: what each account may do unasked, as the machine's rules answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.accounts.polkit import Answers, polkit_answers
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters
from pytest_nixos.subject import Subject, SubjectKind

__all__ = ["KINDS"]

_EVERYBODY = "everybody: "
_FACTS: Mapping[str, Callable[[Answers], tuple[str, ...]]] = {
    "as-root": lambda answers: answers.as_root,
    "to-anybody": lambda answers: answers.to_anybody,
    "administrators": lambda answers: answers.administrators,
}


def _polkit(found: Answers | str | None, parameters: Parameters, _: HostConfig) -> Sight:
    if found is None:
        return Unseen("polkit's rules could not be read")
    if isinstance(found, str):
        return Unseen(found, applicable=False)
    fact = str(parameters["fact"])
    told, unclear = _FACTS[fact](found), found.unclear[fact]
    if not told and unclear:
        # What was found is so whatever else there is; that nothing was found would not be.
        return Unseen(f"what a rule of polkit answers cannot be told: {'; '.join(unclear)}")
    ignored = f"polkit's engine does not read {', '.join(found.not_read)}: none of it is in force"
    return Seen([*told, ignored] if told and found.not_read else list(told))


def _rules(told: object) -> tuple[Subject, ...]:
    """Return what everybody may do, each action once: one rule makes it root's and anybody's."""
    texts = [str(text) for text in told] if isinstance(told, list | tuple) else []
    actions = [
        action
        for text in texts
        if text.startswith(_EVERYBODY)
        for action in text.removeprefix(_EVERYBODY).split(", ")
    ]
    return tuple(Subject(SubjectKind.RULE, f"polkit {action}") for action in dict.fromkeys(actions))


KINDS = (
    Kind(
        name="polkit",
        reads="what polkit's rules let accounts do without a password",
        probe=lambda _, __: polkit_answers(),
        find=_polkit,
        parameters={"fact": Parameter(required=True, choices=tuple(_FACTS))},
        blames=lambda p, told: () if p["fact"] == "administrators" else _rules(told),
    ),
)
