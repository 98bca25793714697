"""Hosts that Nix has evaluated and built beforehand, for a run without Nix: in a build sandbox.

``lib.checkHost`` of this project's flake writes such a directory; see ``nix/check-host.nix``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.errors import SettingsError, Unanswerable
from pytest_nixos.local.process import Completed
from pytest_nixos.nix.building.registration import (
    Registered,
    read_registration,
    requisites,
    written,
)
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.log import NixLog, ProgressSink
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.host_facts import HostConfig, parse_host_config
from pytest_nixos.nix.evaluate import Measured
from pytest_nixos.nix.expression import Instrumentation, option_names
from pytest_nixos.nix.flake import Flake, FlakeHost
from pytest_nixos.nix.flakes import Flakes

__all__ = ["NotPrepared", "Prepared", "PreparedFlakes", "read_prepared"]

Json = Any

FORMAT = 3
_REMEDY = "make it with lib.checkHost of the same release of pytest-nixos"


class NotPrepared(Unanswerable):
    """Something that only Nix could tell, asked where there is no Nix. A check that needs it is not
    applicable there.
    """


class PreparedMachine(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run a prepared host.

    :param document: what ``nix/expressions/host-config.nix`` returned.
    :param package: store path of the built machine.
    """

    backend: str
    document: Mapping[str, Json]
    package: Path


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One prepared host.

    :param flake: how its flake is called.
    :param options: option paths that `document` answers, in its order.
    :param machines: first the one that tests share.
    :param closure: store path of ``closureInfo`` of it.
    :param source: the flake's source tree, ``None`` where the host was given without its flake.
    :param generations: toplevels of changed generations by how they run and the text of their
        module.
    """

    flake: str
    host: str
    options: tuple[str, ...]
    machines: tuple[PreparedMachine, ...]
    closure: Path
    source: Path | None
    generations: Mapping[tuple[str, str], Path] = field(default_factory=dict)

    def machine(self, backend: str) -> PreparedMachine:
        """Return the machine that runs so.

        :raises NotPrepared: if there is none.
        """
        for machine in self.machines:
            if backend in ("auto", machine.backend):
                return machine
        known = ", ".join(machine.backend for machine in self.machines)
        raise NotPrepared(
            f"the host was prepared for the backend {known}, not {backend}",
            remedy="prepare it so: lib.checkHost { life = true; } for machines that reboot, else { backend = ...; }",
        )

    @property
    def ref(self) -> HostRef:
        """How the run calls it."""
        return HostRef(FlakeRef(self.flake), self.host)

    @cached_property
    def registered(self) -> Mapping[str, Registered]:
        """What the store's database knows of all that the machine needs.

        :raises SettingsError: if it cannot be read.
        """
        file = self.closure / "registration"
        try:
            return read_registration(file.read_text())
        except (OSError, ValueError) as err:
            raise SettingsError(
                f"--nixos-prepared: {file}: cannot be read: {err}", remedy=_REMEDY
            ) from err


def read_prepared(directory: Path) -> Prepared:
    """Read a prepared host.

    :param directory: holds ``prepared.json``.
    :raises SettingsError: if there is none, or it is of another release.
    """
    file = directory / "prepared.json"
    try:
        text = file.read_text()
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise SettingsError(
                f"--nixos-prepared: {file}: format {document['format']!r}, this release reads {FORMAT}",
                remedy=_REMEDY,
            )
        return Prepared(
            flake=str(document["flake"]),
            host=str(document["host"]),
            options=tuple(map(str, document["options"])),
            machines=tuple(map(_machine, document["machines"])),
            closure=Path(document["closure"]),
            source=None if document["source"] is None else Path(document["source"]),
            generations={
                (str(each["backend"]), str(each["module"])): Path(each["toplevel"])
                for each in document["generations"]
            },
        )
    except OSError as err:
        raise SettingsError(
            f"--nixos-prepared {directory}: no prepared host: {err.strerror}: {err.filename}",
            remedy="name a directory that lib.checkHost has made, or use --nixos-flake",
        ) from err
    except (KeyError, TypeError, ValueError) as err:
        raise SettingsError(
            f"--nixos-prepared: {file}: is damaged: {type(err).__name__} {err}", remedy=_REMEDY
        ) from err


def _machine(given: Mapping[str, Json]) -> PreparedMachine:
    return PreparedMachine(
        backend=str(given["backend"]),
        document=dict(json.loads(Path(given["document"]).read_text())),
        package=Path(given["package"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoreAlone(Nix):
    """A store without Nix's programs: what the prepared hosts' registrations say."""

    known: Mapping[str, Registered]

    def closure(self, path: Path) -> tuple[Path, ...]:
        return tuple(Path(name) for name in requisites(self.known, str(path)))

    def closure_bytes(self, path: Path) -> int | None:
        return sum(self.known[name].nar_bytes for name in requisites(self.known, str(path)))

    def build(
        self,
        derivation: str,
        *,
        gc_root: Path,
        output: str = "",
        on_progress: ProgressSink | None = None,
    ) -> Path:
        """Return what was built beforehand: a store path that is known stands for itself."""
        if derivation in self.known:
            return Path(derivation)
        return super().build(derivation, gc_root=gc_root, output=output, on_progress=on_progress)

    def dump_database(self, paths: Sequence[Path]) -> bytes:
        return written(self.known[str(path)] for path in paths).encode()

    def run(self, argv: Sequence[str], log: NixLog, limit_s: float) -> Completed:  # noqa: ARG002 - the base's
        raise NotPrepared(
            "there is no Nix in this run, whose host was built beforehand",
            remedy="test the host with --nixos-flake, on a machine with Nix",
        )


class _PreparedFlake(Flake):
    """The flake of prepared hosts: it answers what was asked beforehand."""

    def __init__(
        self,
        ref: FlakeRef,
        nix: Nix,
        instrumentation: Instrumentation,
        hosts: Mapping[str, Prepared],
    ) -> None:
        super().__init__(ref, nix, instrumentation)
        self._prepared = hosts

    @property
    def metadata(self) -> Mapping[str, Json]:
        return {"url": self.ref.url, "locked": {}, "locks": {}}

    @property
    def root(self) -> Path:
        source = next(iter(self._prepared.values())).source
        if source is None:
            raise NotPrepared(
                "the host was prepared without its flake",
                remedy="give lib.checkHost the flake too: flake = self",
            )
        return source

    def host_names(self) -> tuple[str, ...]:
        return tuple(self._prepared)

    def fetch(self) -> None:
        pass  # all is there

    def known(
        self,
        name: str,
        *,
        backend: str = "auto",
        option_paths: Sequence[str] = (),
        where: Sequence[str] = (),  # noqa: ARG002 - nobody asked that when the host was prepared
    ) -> HostConfig | None:
        prepared = self._prepared.get(name)
        if prepared is None:
            return None
        document = dict(prepared.machine(backend).document)
        for kind in ("options", "machineOptions"):
            answers = dict(zip(prepared.options, document[kind], strict=True))
            document[kind] = [_answer(answers, path) for path in option_paths]
        for path in option_paths:
            option_names(path)  # refuses what is no option path
        return parse_host_config(prepared.ref, document, option_paths=tuple(option_paths))

    def evaluate(
        self,
        name: str,
        *,
        backend: str = "auto",
        option_paths: Sequence[str] = (),
        where: Sequence[str] = (),  # noqa: ARG002 - as above
        refuse_image: bool = False,  # noqa: ARG002 - who prepares a host wants it
        measured: Measured = lambda _: None,  # noqa: ARG002 - nothing is evaluated
    ) -> HostConfig:
        found = self.known(name, backend=backend, option_paths=option_paths)
        if found is None:
            raise NotPrepared(
                f"the host {name!r} was not prepared", remedy="prepare it too: lib.checkHost"
            )
        return found

    def build(
        self,
        host: HostConfig,
        *,
        gc_root: Path,  # noqa: ARG002 - an input of the derivation that runs is kept
        on_progress: ProgressSink | None = None,  # noqa: ARG002 - it is there already
    ) -> Path:
        return self._prepared[host.ref.attr].machine(host.backend).package

    def instantiate_generation(
        self,
        name: str,
        *,
        backend: str,
        delta: str,
    ) -> str:
        """Return the toplevel of a generation that was built beforehand, in place of what would
        build it.
        """
        prepared = self._prepared.get(name)
        toplevel = None if prepared is None else prepared.generations.get((backend, delta))
        if toplevel is None:
            raise NotPrepared(
                "there is no Nix in this run, and this generation was not built beforehand",
                remedy="name it: lib.checkHost { generations = [ ... ]; } or { life = true; }, or test with --nixos-flake",
            )
        return str(toplevel)

    def hosts(self) -> tuple[FlakeHost, ...]:
        raise NotPrepared(
            "the other hosts of the flake were not prepared",
            remedy="test the host with --nixos-flake, on a machine with Nix",
        )


class PreparedFlakes(Flakes):
    """The flakes of a run over prepared hosts."""

    def __init__(
        self, nix: Nix, instrumentation: Instrumentation, hosts: Sequence[Prepared]
    ) -> None:
        known = {path: entry for host in hosts for path, entry in host.registered.items()}
        store = _StoreAlone(runner=nix.runner, settings=nix.settings, known=known)
        super().__init__(store, instrumentation)
        self._hosts = tuple(hosts)
        self.refs = tuple(host.ref for host in hosts)
        if len(set(self.refs)) < len(self.refs):
            raise SettingsError(
                f"--nixos-prepared: a host is there twice: {', '.join(map(str, self.refs))}",
                remedy="name each once, or give one another name: lib.checkHost { name = ...; }",
            )

    def registration(self, system: Path) -> bytes:
        return self.nix.dump_database(self.nix.closure(system))

    def of(self, ref: FlakeRef) -> Flake:
        if ref not in self._opened:
            hosts = {host.host: host for host in self._hosts if host.ref.flake == ref}
            self._opened[ref] = _PreparedFlake(ref, self.nix, self.instrumentation, hosts)
        return self._opened[ref]

    def salted(self, salt: str) -> Flakes:  # noqa: ARG002 - what was evaluated stays as it is
        return self


def _answer(answers: Mapping[str, Json], path: str) -> Json:
    try:
        return answers[path]
    except KeyError as err:
        raise NotPrepared(
            f"the option {path} was not asked when the host was prepared",
            remedy="name it: lib.checkHost { options = [ ... ]; }, as for controls of your own",
        ) from err
