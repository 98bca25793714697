"""A flake: its lock, its hosts, its outputs; the one way from a flake ref to a host's facts and
to what is built of it.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pytest_nixos.errors import EvalError, NixosError, Unanswerable
from pytest_nixos.nix.asked_once import AskedAhead, AskedOnce
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command import argv
from pytest_nixos.nix.command.log import ProgressSink
from pytest_nixos.nix.command.metadata import subfolder
from pytest_nixos.nix.command.refs import FlakeRef, HostRef, NixosTestRef
from pytest_nixos.nix.config.host_facts import HostConfig, parse_host_config
from pytest_nixos.nix.config.places import Places
from pytest_nixos.nix.evaluate import (
    CONFIGURATIONS,
    Asked,
    Measured,
    NixAnswer,
    apply_to_hosts,
    apply_to_output,
    ask,
    checked,
    describe,
    host_document,
    source_tree,
)
from pytest_nixos.nix.expression import (
    Instrumentation,
    dev_shells_expression,
    evaluation_expression,
    generation_expression,
    image_expression,
    names_expression,
    option_names,
)
from pytest_nixos.nix.failure.evaluation import ImageRefused
from pytest_nixos.nix.kept import Kept

if TYPE_CHECKING:
    from pytest_nixos.nix.dev_shells.shell import DevShell, ShellVisit
    from pytest_nixos.nix.dev_shells.visit import DirenvVisit
    from pytest_nixos.nix.rebuild import Rebuild

__all__ = ["Flake", "FlakeHost", "UnreadableDocument"]

Json = Any

# Reading whether a host has a `config` loads nixpkgs' lib and no module.
_FETCH = "hosts: builtins.any (name: hosts.${name} ? config) (builtins.attrNames hosts)"


class FlakeHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host of the flake, as far as others call it.

    :param addresses: declared addresses of all its interfaces, without prefix length.
    """

    name: str
    host_name: str
    addresses: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """Everything that another host may write to reach it."""
        return frozenset({self.name, self.host_name, *self.addresses} - {""})


class UnreadableDocument(EvalError):
    """An evaluation gave something other than what the expression returns, or its file is
    damaged.
    """


class Flake:
    """One flake as it was when it was first asked; each question is asked once.

    Nothing is written to the user's files. Shells are entered in a copy.

    :param instrumentation: what a machine gets beside what its host declares.
    :param same_as: the same flake, opened for another of its outputs.
    """

    def __init__(
        self,
        ref: FlakeRef,
        nix: Nix,
        instrumentation: Instrumentation,
        same_as: Flake | None = None,
    ) -> None:
        self.ref = ref
        self.nix = nix
        self._instrumentation = instrumentation
        self._same_as = same_as
        self._metadata: Mapping[str, Json] | None = None
        self._metadata_ahead: AskedAhead[Mapping[str, Json]] | None = None
        self._kept_answers: Kept | None = None
        self._known: dict[str, HostConfig] = {}
        self._root: Path | None = None
        self._shells: dict[tuple[str, str], DevShell] = {}
        self._visits: dict[tuple[str, str, bool], ShellVisit] = {}
        self._shell_names: Mapping[str, tuple[str, ...]] | None = None
        self._hosts: tuple[FlakeHost, ...] | None = None
        self._lock: NixAnswer | None = None
        self._check: NixAnswer | None = None
        self._rebuilt: dict[str, bool] = {}
        self._generations = AskedOnce()

    # What it is.

    @property
    def metadata(self) -> Mapping[str, Json]:
        """What ``nix flake metadata`` says of it: ``url``, ``path``, ``locked``, ``locks``.

        :raises FlakeError: if the flake cannot be found, fetched or locked, or lacks an input to
            override.
        """
        if self._same_as is not None:
            return self._same_as.metadata
        if self._metadata is None:
            ahead, self._metadata_ahead = self._metadata_ahead, None
            self._metadata = describe(self.nix, self.ref) if ahead is None else ahead.take()
        return self._metadata

    def ask_ahead(self) -> None:
        """Ask Nix what the flake is, and for its own version, beside what follows: all that is known
        without an evaluation is known by these.
        """
        self._metadata_ahead = AskedAhead(lambda: describe(self.nix, self.ref))
        AskedAhead(self.nix.version)

    @property
    def root(self) -> Path:
        """The source tree in the store that holds the flake.

        :raises FlakeError: if the flake cannot be read.
        """
        if self._root is None:
            self._root = source_tree(self.nix, self.ref, self.metadata)
        return self._root

    @property
    def source(self) -> Path:
        """The directory of ``flake.nix`` in the store.

        :raises FlakeError: if the flake cannot be read.
        """
        return self.root / subfolder(self.metadata)

    @property
    def system(self) -> str:
        """System of this machine, as Nix names it, for example ``x86_64-linux``."""
        return f"{platform.machine()}-{platform.system().lower()}"

    def lock_answer(self) -> NixAnswer:
        """Ask Nix whether ``flake.lock`` says all that ``flake.nix`` needs, once."""
        if self._lock is None:
            self._lock = ask(self.nix, argv.lock_check_argv(self.nix.settings, self.ref))
        return self._lock

    def check_answer(self) -> NixAnswer:
        """Run ``nix flake check --no-build`` once, however many hosts the flake has.

        That it passed is kept between runs and workers, as evaluations are; why it failed is not,
        since a network may be what was missing.
        """
        if self._check is None:
            question = {"kind": "flake check"}
            warnings = self._kept.get(question).get("warnings")
            if isinstance(warnings, list):
                self._check = NixAnswer(succeeded=True, said="", warnings=tuple(warnings))
                return self._check
            self._check = ask(self.nix, argv.check_argv(self.nix.settings, self.ref))
            if self._check.succeeded:
                self._kept.put(question, {"warnings": list(self._check.warnings)})
        return self._check

    # Its hosts.

    def host_names(self) -> tuple[str, ...]:
        """List ``nixosConfigurations`` in order of name.

        :raises FlakeError: if the flake cannot be read or has none.
        :raises EvalError: if the flake itself does not evaluate.
        """
        question = {"kind": "host names"}
        names = self._kept.get(question).get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            names = self._of_hosts("", "builtins.attrNames")
            self._kept.put(question, {"names": names})
        return tuple(names)

    def fetch(self) -> None:
        """Have Nix fetch what evaluating a host reads, so that evaluations at once do not each
        fetch it.

        What is wrong with the flake, the evaluations tell.
        """
        with contextlib.suppress(NixosError):
            self._of_hosts("", _FETCH)

    def known(
        self,
        name: str,
        *,
        backend: str = "auto",
        option_paths: Sequence[str] = (),
        where: Sequence[str] = (),
    ) -> HostConfig | None:
        """Return what :meth:`evaluate` would, if it is known without an evaluation."""
        names = _option_names(option_paths)
        question = self._host_question(name, backend, names, where)
        asked = json.dumps(question)
        if asked in self._known:
            return self._known[asked]
        document = self._kept.instantiated(question)
        if document is None:
            return None
        with contextlib.suppress(UnreadableDocument):
            return self._known.setdefault(asked, self._parsed(name, document, names, where))
        return None  # damaged, which counts as absent

    def evaluate(
        self,
        name: str,
        *,
        backend: str = "auto",
        option_paths: Sequence[str] = (),
        where: Sequence[str] = (),
        refuse_image: bool = False,
        measured: Measured = lambda _: None,
    ) -> HostConfig:
        """Evaluate one host to its facts and instantiate its machine.

        :param backend: ``auto`` (a container if the host declares ``boot.isContainer``), ``vm``,
            ``container``, ``boot-loader`` (a VM with a disk and boot loader of its own), ``member``
            (of a cluster: a VM with the host's own network cards).
        :param option_paths: further options to read, as written in a module.
        :param where: option paths whose definitions are told, see :func:`evaluation_expression`.
        :param refuse_image: refuse a host that is made into a medium, such as an ISO image, before
            its machine is evaluated.
        :param measured: told how much memory it took, in MiB, if it was not known already.
        :raises FlakeError: if the flake cannot be read or has no such host.
        :raises ImageRefused: if it is such a host.
        :raises EvalError: if the host does not evaluate.
        :raises SettingsError: if an option path is malformed.
        """
        known = self.known(name, backend=backend, option_paths=option_paths, where=where)
        host, names = HostRef(self.ref, name), _option_names(option_paths)
        if refuse_image and (kind := self._image(name, known)):
            raise ImageRefused(host, kind)
        if known is not None:
            return known
        try:
            document = host_document(
                self.nix,
                host,
                metadata=self.metadata,
                backend=backend,
                instrumentation=self._instrumentation,
                refuse_image=refuse_image,
                asked=Asked(options=names, where=where),
                measured=measured,
            )
        except ImageRefused as err:
            self._kept.put(_image_question(name), {"image": err.kind})
            raise
        config = self._parsed(name, document, names, where)
        self._kept.put(self._host_question(name, backend, names, where), document)
        return config

    def instantiate_generation(self, name: str, *, backend: str, delta: str) -> str:
        """Instantiate a toplevel that the machine of a host can switch to; return its derivation.

        Several threads may ask: who comes second waits for the answer that the first gets.

        :param backend: the machine's, ``vm`` or ``container``.
        :param delta: text of a Nix module, ``{ }`` for none.
        :raises EvalError: if the host with the delta does not evaluate.
        :raises Unanswerable: of a node of a NixOS test.
        """
        if isinstance(self.ref, NixosTestRef):
            raise Unanswerable(
                "a node of a NixOS test cannot be extended, so it has no other generation",
                remedy="judge changed generations of an entry of nixosConfigurations",
            )
        expression = generation_expression(
            name, backend=backend, instrumentation=self._instrumentation, delta=delta
        )
        question = {"kind": "generation", "expression": expression}

        def instantiate() -> str:
            document = self._kept.instantiated(question)
            if document is None:
                document = checked(HostRef(self.ref, name), self._of_hosts(name, expression))
                self._kept.put(question, document)
            return str(document["derivation"])

        return self._generations.of(expression, instantiate)

    def build(
        self, host: HostConfig, *, gc_root: Path, on_progress: ProgressSink | None = None
    ) -> Path:
        """Build the machine of a host that was evaluated; see
        :meth:`pytest_nixos.nix.building.store.Nix.build`.
        """
        return self.nix.build(
            host.derivation, gc_root=gc_root, output=host.output, on_progress=on_progress
        )

    def hosts(self) -> tuple[FlakeHost, ...]:
        """Return all hosts of the flake with their names and declared addresses.

        :raises EvalError: if one of them does not evaluate.
        """
        if self._hosts is None:
            found = self._of_output(CONFIGURATIONS, names_expression())
            self._hosts = tuple(
                FlakeHost(name=n, host_name=h["hostName"], addresses=tuple(h["addresses"]))
                for n, h in (found or {}).items()
            )
        return self._hosts

    def container_template(self, host: str, *, gc_root: Path) -> Path | None:
        """Build the template from which Proxmox makes the host's container; ``None`` where the
        host has none.

        :param gc_root: link to make to what was built.
        :raises EvalError: if the host does not evaluate.
        :raises BuildError: if the template cannot be built.
        """
        derivation = self._of_hosts(host, image_expression(host))
        return None if derivation is None else self.nix.build(str(derivation), gc_root=gc_root)

    def rebuild(self, derivation: str) -> Rebuild:
        """Build again what this machine built for `derivation`, as far as that is cheap and was
        not done for another host, and compare.

        Text files, units and scripts are built again, and the system that holds them; packages are
        not.

        :param derivation: store path of a derivation that has been built.
        """
        from pytest_nixos.nix.rebuild import rebuild

        return rebuild(self.nix, derivation, self._rebuilt)

    # Its other outputs.

    def systems(self) -> tuple[str, ...]:
        """Return the systems for which the flake has packages, checks, programs or a formatter.

        :raises EvalError: if the flake does not evaluate.
        """
        found: set[str] = set()
        for output in ("packages", "checks", "apps", "formatter"):
            found |= set(self._of_output(output, "builtins.attrNames") or ())
        return tuple(sorted(found))

    def dev_shell_names(self) -> Mapping[str, tuple[str, ...]]:
        """Return the names of all development shells by system; empty where the flake has none.

        :raises EvalError: if the flake does not evaluate.
        """
        if self._shell_names is None:
            found = self._of_output("devShells", dev_shells_expression({})) or {}
            self._shell_names = {system: tuple(names) for system, names in found.items()}
        return self._shell_names

    def dev_shell(self, system: str, name: str) -> DevShell:
        """Evaluate one development shell.

        :raises EvalError: if it does not evaluate.
        """
        key = (system, name)
        if key not in self._shells:
            expression = dev_shells_expression({"system": system, "shell": name})
            document = self._of_output("devShells", expression, about=f"devShells.{system}.{name}")
            from pytest_nixos.nix.dev_shells.shell import DevShell

            self._shells[key] = DevShell.parse(system, name, document)
        return self._shells[key]

    def enter(self, system: str, name: str, *, pure: bool = False) -> ShellVisit:
        """Enter a development shell with ``nix develop`` in a copy of the flake, once per kind
        of entry.

        :param pure: with ``--ignore-environment``.
        """
        key = (system, name, pure)
        if key not in self._visits:
            from pytest_nixos.nix.dev_shells.visit import enter_shell

            self._visits[key] = enter_shell(
                self.nix.settings,
                self.ref,
                system=system,
                shell=name,
                pure=pure,
                root=self.root,
                below=subfolder(self.metadata),
            )
        return self._visits[key]

    @property
    def has_direnv(self) -> bool:
        """Whether direnv is installed on this machine."""
        return shutil.which("direnv") is not None

    def enter_with_direnv(self) -> DirenvVisit:
        """Let direnv load ``.envrc`` in a copy of the flake, and look for what it keeps from
        being collected.
        """
        from pytest_nixos.nix.dev_shells.visit import enter_with_direnv

        return enter_with_direnv(self.nix, root=self.root, below=subfolder(self.metadata))

    def _of_hosts(self, name: str, expression: str) -> Json:
        return apply_to_hosts(self.nix, HostRef(self.ref, name), expression, metadata=self.metadata)

    def _of_output(self, output: str, expression: str, *, about: str = "") -> Json:
        return apply_to_output(
            self.nix, self.ref, output, expression, metadata=self.metadata, about=about
        )

    # What is known of it without an evaluation.

    @property
    def _kept(self) -> Kept:
        if self._kept_answers is None:
            self._kept_answers = Kept(self.nix, self.ref, self.metadata)
        return self._kept_answers

    def _host_question(
        self,
        name: str,
        backend: str,
        names: Mapping[str, Sequence[str]],
        where: Sequence[str],
    ) -> Mapping[str, object]:
        expression = evaluation_expression(
            name,
            backend=backend,
            instrumentation=self._instrumentation,
            options=list(names.values()),
            where=where,
        )
        return {"kind": "host", "expression": expression}

    def _image(self, name: str, known: HostConfig | None) -> str:
        """Return what kind of medium a host is, as far as an earlier evaluation found out;
        ``""`` otherwise.
        """
        kept = self._kept.get(_image_question(name)).get("image")
        return known.image if known is not None else kept if isinstance(kept, str) else ""

    def _parsed(
        self,
        name: str,
        document: Mapping[str, Json],
        names: Mapping[str, Sequence[str]],
        where: Sequence[str],
    ) -> HostConfig:
        """Read a document.

        :raises UnreadableDocument: if it is not what ``nix/expressions/host-config.nix`` returns.
        """
        host = HostRef(self.ref, name)
        try:
            config = parse_host_config(host, document, option_paths=tuple(names), where=where)
            # A path in the store is another one after each change of the flake.
            shorten = Places.of(self.metadata).shorten if config.warnings else str
            return replace(config, warnings=tuple(map(shorten, config.warnings)))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as err:
            raise UnreadableDocument(
                f"{host}: what was evaluated cannot be read: {type(err).__name__} {err}",
                remedy="report this as a defect of pytest-nixos, with the release of the host's nixpkgs",
            ) from err


def _image_question(name: str) -> Mapping[str, object]:
    return {"kind": "image", "host": name}


def _option_names(option_paths: Sequence[str]) -> Mapping[str, Sequence[str]]:
    return {path: option_names(path) for path in option_paths}
