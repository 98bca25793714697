"""The generations of a running machine: build, switch, roll back, reboot, and what each step did.

A generation to switch to is the toplevel of the machine's own variant plus a change, so that
nothing that the machine lives on (its file systems, its command channel) goes away. Exit codes and
links are those of ``switch-to-configuration`` and ``nix-env``, see nixos/modules/system/activation
in nixpkgs.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path

from pytest_nixos.errors import GenerationError, TransportError
from pytest_nixos.generations.admission import admit, checked, refuse_foreign, run_guest
from pytest_nixos.generations.announced import Announced
from pytest_nixos.generations.bridge import StoreBridge
from pytest_nixos.generations.links import (
    GENERATIONS_QUERY,
    LOOK,
    LOOK_WITH_STATES,
    LOOK_WITH_UNITS,
    PROFILE,
    Generation,
    Links,
    Moment,
)
from pytest_nixos.generations.outcome import PowerOutcome, SwitchOutcome
from pytest_nixos.generations.sources import Source, Specialisation, StorePath, as_source
from pytest_nixos.generations.span import Span
from pytest_nixos.generations.units import UnitChanges
from pytest_nixos.generations.unwell import broken_before, unwell_before
from pytest_nixos.generations.verb import Verb
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.capabilities import BootsFrom
from pytest_nixos.observe.boot_menu import BOOT_MENU

__all__ = ["Generations"]


class Generations:
    """Generations of one machine; each change begins a new epoch of the machine.

    Whatever takes a `generation` takes a :data:`Source`, the text of a module, the file of one, or
    a store path.

    :param refusal: why this machine must not be changed, ``""`` if it may (a live host without
        permission).
    """

    def __init__(self, machine: Machine, bridge: StoreBridge, *, refusal: str = "") -> None:
        self._machine = machine
        self._bridge = bridge
        self._refusal = refusal
        self._admitted = "", -1  # what was built last, and the epoch in which the guest has it

    @property
    def links(self) -> Links:
        """Toplevels by role: current, booted, profile, boot default."""
        return self._look(LOOK).links

    @property
    def current(self) -> str:
        """Toplevel that is active, a store path."""
        return self.links.current

    @property
    def booted(self) -> str:
        """Toplevel that was booted, a store path."""
        return self.links.booted

    @property
    def profile(self) -> str:
        """Toplevel that the system profile links to, ``""`` if there is no profile yet."""
        return self.links.profile

    @property
    def boot_default(self) -> str:
        """Toplevel that the next boot takes, ``""`` in a VM without boot loader: its run
        script's own.
        """
        return self.links.default

    def list(self) -> tuple[Generation, ...]:
        """Return the generations of the system profile, oldest first."""
        return Generation.parse_all(run_guest(self._machine, GENERATIONS_QUERY).stdout_text)

    def generation(self, number: int) -> Generation:
        """Return one generation of the system profile.

        :raises GenerationError: if there is none of that number.
        """
        known = self.list()
        found = [generation for generation in known if generation.number == number]
        if not found:
            names = ", ".join(str(generation.number) for generation in known) or "none"
            raise GenerationError(
                f"{self._machine.name}: there is no generation {number}",
                remedy=f"generations of the system profile: {names}",
            )
        return found[0]

    def build(self, generation: Source | str | Path) -> str:
        """Build a generation and bring it into the guest's store, without network; nothing is
        activated.

        :return: its toplevel.
        :raises EvalError: if it does not evaluate.
        :raises BuildError: if it does not build.
        :raises GenerationError: if it is not there, or no system for this machine.
        """
        source = as_source(generation)
        if isinstance(source, Specialisation):
            return self._specialisation(source.name)
        if isinstance(source, StorePath):
            toplevel = source.path
            if self._admitted == (toplevel, self._machine.epoch):
                return toplevel
            here = self._bridge.holds(Path(toplevel))
        else:
            toplevel, here = str(self._bridge.build_generation(source)), True
        if here:
            admit(self._machine, self._bridge, Path(toplevel))
        refuse_foreign(self._machine, toplevel)
        self._admitted = toplevel, self._machine.epoch
        return toplevel

    def set_profile(self, toplevel: str) -> None:
        """Make `toplevel` the newest generation of the system profile, as ``nixos-rebuild`` does
        first.

        :raises GenerationError: if ``nix-env`` refuses.
        """
        self._permit()
        checked(self._machine, f"nix-env --profile {PROFILE} --set {shlex.quote(toplevel)}")
        self._machine.invalidate()

    def switch(
        self, generation: Source | str | Path, *, tells_restarts: bool = True
    ) -> SwitchOutcome:
        """Add a generation and activate it, as ``nixos-rebuild switch`` does.

        The system that runs becomes a generation first, if the profile has none: a VM without boot
        loader starts without one, and there must be something to roll back to.

        :param tells_restarts: also tell units that were restarted or reloaded; each is asked for that.
        """
        return self._add_and_activate(generation, Verb.SWITCH, tells_restarts=tells_restarts)

    def boot(self, generation: Source | str | Path) -> SwitchOutcome:
        """Add a generation and make it the boot default, as ``nixos-rebuild boot`` does; nothing
        is activated.
        """
        return self._add_and_activate(generation, Verb.BOOT)

    def test(self, generation: Source | str | Path) -> SwitchOutcome:
        """Activate a generation and leave profile and boot default, as ``nixos-rebuild test``
        does.
        """
        self._permit()
        return self.activate(self.build(generation), Verb.TEST)

    def dry_activate(self, generation: Source | str | Path) -> SwitchOutcome:
        """Let a generation tell what its activation would do."""
        self._permit()
        return self.activate(self.build(generation), Verb.DRY_ACTIVATE)

    def rollback(self, verb: Verb = Verb.SWITCH, *, tells_restarts: bool = True) -> SwitchOutcome:
        """Go back to the generation before the profile's, as ``nixos-rebuild --rollback`` does.

        :param verb: ``SWITCH`` or ``BOOT`` move the profile, ``TEST`` does not.
        :param tells_restarts: as of :meth:`switch`.
        :raises GenerationError: if there is no earlier generation; nothing has been changed.
        """
        self._permit()
        earlier = self._earlier()
        if verb in (Verb.SWITCH, Verb.BOOT):
            checked(self._machine, f"nix-env --profile {PROFILE} --rollback")
        return self.activate(earlier.toplevel, verb, tells_restarts=tells_restarts)

    def take_back_profile(self) -> None:
        """Make the generation before the profile's the profile again, and delete the one that
        was; nothing is activated.

        After a switch that the new system's pre-switch checks refused, the profile names a system
        that was never activated.
        """
        self._permit()
        checked(self._machine, f"nix-env --profile {PROFILE} --rollback")
        self.forget_newer()
        self._machine.invalidate()

    def forget_newer(self) -> None:
        """Delete the generations above the profile's: a later rollback must not go to one that
        was taken back.
        """
        self._permit()
        number = self._profile_number()
        newer = [str(generation.number) for generation in self.list() if generation.number > number]
        if newer:
            forget = f"nix-env --profile {PROFILE} --delete-generations {' '.join(newer)}"
            checked(self._machine, forget)

    def activate(self, toplevel: str, verb: Verb, *, tells_restarts: bool = True) -> SwitchOutcome:
        """Run ``switch-to-configuration`` of `toplevel`; the profile stays as it is.

        :param tells_restarts: as of :meth:`switch`.
        :raises GenerationError: if it is cut off; the machine is then as it was, or declared
            broken.
        """
        self._permit()
        query = LOOK_WITH_UNITS if tells_restarts else LOOK_WITH_STATES
        before = self._look(query)
        span = Span(self._machine, before.cursor)
        program = shlex.quote(f"{toplevel}/bin/switch-to-configuration")
        started_s = time.monotonic()
        try:
            # From /: an invalid working directory breaks the /etc step.
            result = run_guest(self._machine, f"cd / && {program} {verb.value} 2>&1")
        except TransportError as err:
            self._machine.invalidate()
            raise self._cut_off(toplevel, verb, before, err) from err
        duration_s = time.monotonic() - started_s
        self._machine.invalidate()
        after = self._look(query)
        return SwitchOutcome(
            verb=verb,
            toplevel=toplevel,
            exit_status=result.exit_status,
            output=result.stdout_text,
            announced=Announced.parse(result.stdout_text),
            observed=UnitChanges.between(before.units, after.units),
            unwell_before=unwell_before(self._machine, before, result.exit_status),
            broken_before=broken_before(self._machine, result.exit_status),
            before=before.links,
            after=after.links,
            console=span.console(),
            journal=span.journal(),
            kernel_warning=after.kernel_warning,
            duration_s=duration_s,
        )

    def reboot(self, *, into: int | None = None) -> PowerOutcome:
        """Shut the machine down in order and start it again.

        :param into: number of the generation to boot once, the boot default if ``None``.
        :raises GenerationError: if there is no such generation, or nothing on this machine can
            choose one.
        :raises BootError: if it does not come up again.
        """
        chosen = self._choose(into)
        return self._cycle(orderly=True, generation=chosen)

    def crash(self) -> PowerOutcome:
        """Cut the machine's power, as if its plug were pulled, and start it again on the same disk.

        :raises BootError: if it does not come up again.
        """
        return self._cycle(orderly=False, generation=None)

    def shutdown(self) -> PowerOutcome:
        """Shut the machine down in order; ``machine.power_on()`` starts it again."""
        self._permit()
        before, span = self.links, Span(self._machine)
        started_s = time.monotonic()
        self._machine.power_off(orderly=True)
        return PowerOutcome(
            before=before,
            after=before,
            console=span.console(),
            journal="",
            duration_s=time.monotonic() - started_s,
        )

    def _add_and_activate(
        self, generation: Source | str | Path, verb: Verb, *, tells_restarts: bool = True
    ) -> SwitchOutcome:
        self._permit()
        toplevel = self.build(generation)
        links = self.links
        if not links.profile:
            self.set_profile(links.current)
        self.set_profile(toplevel)
        return self.activate(toplevel, verb, tells_restarts=tells_restarts)

    def _cycle(self, *, orderly: bool, generation: int | None) -> PowerOutcome:
        self._permit()
        before, span = self.links, Span(self._machine)
        started_s = time.monotonic()
        self._machine.power_off(orderly=orderly)
        self._machine.power_on(generation=generation)
        return PowerOutcome(
            before=before,
            after=self.links,
            console=span.console(),
            journal=span.journal_of_boot(),
            duration_s=time.monotonic() - started_s,
        )

    def _choose(self, number: int | None) -> int | None:
        """Tell the boot loader, or return what the backend has to start."""
        if number is None:
            return None
        self._permit()
        chosen = self.generation(number)
        boots_from = self._machine.boots_from
        if boots_from is BootsFrom.PROFILE:
            return number
        if boots_from is not BootsFrom.LOADER:
            raise GenerationError(
                f"{self._machine.name}: no boot loader chooses a generation here:"
                f" the machine comes up by {boots_from.value if boots_from else 'itself'}",
                remedy='mark the test nixos_requires("boot-loader"), or reboot() without a generation',
            )
        look = f"{BOOT_MENU}\nboot_entry_of {shlex.quote(chosen.toplevel)}"
        entry = run_guest(self._machine, look).stdout_text.strip()
        if not entry:
            raise GenerationError(
                f"{self._machine.name}: no entry of the boot menu starts generation {number}"
                f" ({chosen.toplevel})",
                remedy="the menu holds the newest generations only: raise its configurationLimit"
                " (boot.loader.systemd-boot), or choose a newer generation",
            )
        checked(self._machine, f"bootctl set-oneshot {shlex.quote(entry)}")
        return None

    def _earlier(self) -> Generation:
        number = self._profile_number()
        earlier = [generation for generation in self.list() if generation.number < number]
        if not earlier:
            raise GenerationError(
                f"{self._machine.name}: no earlier generation to roll back to;"
                f" the system profile is {self.profile or 'empty'}",
                remedy="switch to another generation first",
            )
        return earlier[-1]

    def _profile_number(self) -> int:
        name = run_guest(self._machine, f"readlink {PROFILE}").stdout_text.strip()
        number = name.rpartition("/")[2].removeprefix("system-").removesuffix("-link")
        return int(number) if number.isdecimal() else 0

    def _specialisation(self, name: str) -> str:
        base = shlex.quote(str(self._declared()))
        wanted = f"{base}/specialisation/{shlex.quote(name)}"
        answer = run_guest(self._machine, f"readlink -e {wanted} || ls {base}/specialisation")
        text = answer.stdout_text.split()
        if len(text) != 1 or not text[0].startswith("/nix/store/"):
            raise GenerationError(
                f"{self._machine.name}: there is no specialisation {name!r}",
                remedy=f"specialisations of the host: {', '.join(text) or 'none'}",
            )
        return text[0]

    def _declared(self) -> str:
        """Return the system that the host declares, not a specialisation or a generation that
        runs now.
        """
        return self._machine.spec.host.toplevel or self.booted

    def _cut_off(
        self, toplevel: str, verb: Verb, before: Moment, error: TransportError
    ) -> GenerationError:
        what = f"{self._machine.name}: {verb.value} to {toplevel} was cut off: {error.message}"
        try:
            now = self._look()
        except TransportError:
            self._machine.condemn(
                f"{verb.value} to {toplevel} was cut off, and it no longer answers"
            )
            return GenerationError(
                what, remedy="the machine is broken; crash() starts it again on its disk"
            )
        changed = UnitChanges.between(before.units, now.units)
        if now.links == before.links and changed == UnitChanges():
            return GenerationError(
                f"{what}; nothing had changed", remedy="raise the limit, or try again"
            )
        state = f"it runs {now.links.current}, its profile is {now.links.profile}"
        self._machine.condemn(f"half-switched: {verb.value} to {toplevel} was cut off; {state}")
        return GenerationError(
            f"{what}; half-switched: {state}",
            remedy="the machine is broken; crash() starts it again on its disk",
        )

    def _look(self, query: str = LOOK_WITH_UNITS) -> Moment:
        moment = Moment.parse(run_guest(self._machine, query).stdout_text)
        links = moment.links
        if self._machine.boots_from is BootsFrom.PROFILE and not links.default:
            return replace(moment, links=replace(links, default=links.profile))
        return moment

    def _permit(self) -> None:
        if self._refusal:
            raise GenerationError(
                f"{self._machine.name}: not changed: {self._refusal}",
                remedy="--nixos-allow-live-switch permits it; better test on a VM of the host",
            )
