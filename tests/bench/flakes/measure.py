"""One host of the corpus: evaluated plainly and by the plugin in turn, then judged."""

from __future__ import annotations

import re
import resource
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pytest_nixos.errors import NixosError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.machine.channel.protocol import guest_script
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings, eval_argv
from pytest_nixos.nix.command.log import NixLog
from pytest_nixos.nix.command.refs import FlakeRef, nix_quote
from pytest_nixos.nix.config.changes import changes
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from tests.bench.flakes.corpus import (
    NotFetched,
    Repository,
    checkout,
    provide_inputs,
)
from tests.support.config_only import asked_options, controls_of, judged

__all__ = ["Row", "measure"]

Json = Any
_LIMIT_S = 900.0
#: Words of an error that say nothing of the host: places, hashes.
_PLACE = re.compile(r"(/nix/store/)?[0-9a-z]{32}-|/tmp/\S*/flakes/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one evaluation took, in seconds of the processor and at its peak."""

    seconds: float
    mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one host.

    :param why: why it was not evaluated, ``""`` if it was.
    :param missing: inputs that are not at hand; a host need not use them.
    :param replaced: inputs of which an earlier commit stands in.
    :param findings: controls that do not hold, each with what was observed, shortened.
    """

    repository: str
    commit: str
    host: str
    why: str = ""
    missing: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    plain: Cost | None = None
    ours: Cost | None = None
    backend: str = ""
    changed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    judged: int = 0
    findings: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> Json:
        """Return it as JSON, without what says nothing."""
        return {name: value for name, value in asdict(self).items() if value not in ("", (), None)}


def measure(
    repository: Repository,
    host: str,
    *,
    sources: tuple[Path, ...],
    nixpkgs: str,
    program: str,
    work: Path,
    profile: str,
) -> Row:
    """Fetch, evaluate and judge one host; what goes wrong is its row.

    :param nixpkgs: flake ref that stands in for each nixpkgs that the flake locks.
    :param program: the ``nix`` to use.
    """
    about = partial(Row, repository=repository.name, commit=repository.commit, host=host)
    try:
        source = checkout(repository, sources, work)
    except NotFetched as err:
        return about(why=f"not fetched: {err}")
    inputs = provide_inputs(source, sources, work)
    settings = NixSettings(
        program=program,
        override_inputs=(
            *((name, nixpkgs) for name in inputs.nixpkgs),
            *inputs.replaced,
            *inputs.emptied,
        ),
        evaluation_limit_s=_LIMIT_S,
    )
    nix = Nix(runner=SubprocessRunner(), settings=settings)
    ref = FlakeRef(f"git+file://{source}")
    about = partial(
        about, missing=inputs.missing, replaced=tuple(name for name, _ in inputs.replaced)
    )
    controls = controls_of(profile)
    mib: list[int] = []
    try:
        plain = _plainly(nix, ref, host)
        flake = Flake(ref, nix, Instrumentation(channel_script=guest_script(), snapshot=True))
        _ = flake.metadata
        began = _children_s()
        config = flake.evaluate(host, option_paths=asked_options(controls), measured=mib.append)
        took = _children_s() - began
    except NixosError as err:
        return about(why=_short(err.message))
    verdicts = list(judged(config, controls, source))
    return about(
        plain=plain,
        ours=Cost(seconds=round(took, 1), mib=max(mib)),
        backend=config.backend,
        changed=tuple(change.what for change in changes(config.changed)),
        unreadable=config.unreadable,
        judged=len(verdicts),
        findings={v.verdict.control.id: _short(v.verdict.reason) for v in verdicts if v.failed},
    )


def _plainly(nix: Nix, flake: FlakeRef, host: str) -> Cost:
    expression = f"hosts: hosts.{nix_quote(host)}.config.system.build.toplevel.drvPath"
    log, began = NixLog(), _children_s()
    done = nix.run(eval_argv(nix.settings, flake, "nixosConfigurations", expression), log, _LIMIT_S)
    took = _children_s() - began
    if done.exit_status != 0:
        said = [error.text for error in log.errors] or list(log.plain) or ["no word"]
        raise NixosError(said[-1].strip().splitlines()[0], remedy="see nix eval")
    return Cost(seconds=round(took, 1), mib=(done.peak_bytes or 0) >> 20)


def _children_s() -> float:
    """Return the processor time of processes that ended, without what the kernel did for them:
    whether a derivation is written for the first time, and what else the machine does, is not in it.
    """
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def _short(text: str) -> str:
    line = _PLACE.sub("", text.partition("\n")[0])
    return line if len(line) <= 160 else f"{line[:157]}..."
