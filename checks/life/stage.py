"""A machine with a base generation to change and to come back to, and the cells of the matrix
that were tried on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_nixos import Verb

from .changes import DATA, LOOK, Change, base_module, look_at, module

if TYPE_CHECKING:
    from pytest_nixos import Generations, Links, Machine, SwitchOutcome

__all__ = ["Cell", "Stage", "base_stage"]

_PROFILE = "/nix/var/nix/profiles/system"
_LIMIT_S = 300.0


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One verb to one changed generation, and the way back.

    :param before: links before the verb.
    :param changed: what was seen after the verb.
    :param returned: how the base came back, ``None`` where there was nothing to take back.
    :param after: what was seen then.
    """

    verb: Verb
    change: Change
    before: Links
    outcome: SwitchOutcome
    changed: Mapping[str, str]
    returned: SwitchOutcome | None
    links: Links
    after: Mapping[str, str]

    @property
    def name(self) -> str:
        """The cell's place in the matrix."""
        return f"{self.verb.value}: {self.change.name}"


class Stage:
    """A machine that runs the base generation.

    :param tell: told what is being done.
    """

    def __init__(
        self, machine: Machine, generations: Generations, tell: Callable[[str], None]
    ) -> None:
        self.machine = machine
        self.generations = generations
        self.tell = tell
        self.mark = "kept over everything"
        self.own = generations.current
        tell("switching to the base generation")
        self.started = generations.switch(base_module())
        self.base = self.started.toplevel
        machine.run(f"echo '{self.mark}' > {DATA} && sync")
        self.seen = self.look()

    def reset(self) -> Generations:
        """Bring the base generation back as current, profile and default, and as the newest
        there is.

        A rollback goes to the generation of the next lower number, which is not always what ran
        before: what was tried and taken back must not lie in between.
        """
        life = self.generations
        links = life.links
        if not links.current == links.profile == links.default == self.base:
            life.set_profile(self.base)
            life.activate(self.base, Verb.SWITCH)
        self._forget_tried()
        return life

    def _forget_tried(self) -> None:
        known = self.generations.list()
        bases = [g.number for g in known if g.toplevel == self.base]
        current = self.machine.run(f"readlink {_PROFILE}").stdout_text
        number = int(current.rpartition("/")[2].split("-")[1])
        newer = [str(g.number) for g in known if g.number > min(bases) and g.number != number]
        if newer:
            forget = f"nix-env --profile {_PROFILE} --delete-generations {' '.join(newer)}"
            self.machine.run(forget, timeout_s=_LIMIT_S)

    def look(self) -> dict[str, str]:
        """Return what the base and its changes show."""
        return look_at(self.machine.run(LOOK).stdout_text)

    def build(self, values: Mapping[str, str], more: str = "") -> str:
        """Build the base with a change and return its toplevel."""
        return self.generations.build(module(values, more))

    def try_cell(self, verb: Verb, change: Change) -> Cell:
        """Apply a verb to a changed generation, look, and take it back."""
        self.tell(f"{verb.value}: {change.name}")
        self.reset()
        toplevel = self.build(change.values)
        before = self.generations.links
        outcome = self._apply(verb, toplevel)
        changed = self.look()
        returned = self._take_back(verb)
        return Cell(
            verb=verb,
            change=change,
            before=before,
            outcome=outcome,
            changed=changed,
            returned=returned,
            links=self.generations.links,
            after=self.look(),
        )

    def _apply(self, verb: Verb, toplevel: str) -> SwitchOutcome:
        life = self.generations
        verbs = {
            Verb.SWITCH: life.switch,
            Verb.BOOT: life.boot,
            Verb.TEST: life.test,
            Verb.DRY_ACTIVATE: life.dry_activate,
        }
        return verbs[verb](toplevel)

    def _take_back(self, verb: Verb) -> SwitchOutcome | None:
        if verb is Verb.DRY_ACTIVATE:
            return None
        if verb is Verb.TEST:
            return self.generations.test(self.base)
        return self.generations.rollback(verb)


@pytest.fixture(name="stage", scope="module")
def base_stage(
    nixos_rebooting_machine: Machine,
    nixos_rebooting_generations: Generations,
    nixos_progress: Callable[[str], None],
) -> Stage:
    """The machine of this suite, running the base generation."""
    return Stage(nixos_rebooting_machine, nixos_rebooting_generations, nixos_progress)
