"""Building again what was built, once a derivation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_nixos.local.process import Completed, LineSink
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.rebuild import rebuild
from tests.support.runner import FakeRunner


def derivation(folder: Path, name: str) -> str:
    output = folder / f"{name}-out"
    output.touch()
    file = folder / f"{name}.drv"
    file.write_text(f'Derive([("out","{output}","","")],[],[("preferLocalBuild","1")])')
    return str(file)


class FakeBuilds(FakeRunner):
    """A Nix whose systems need some derivations, of which some differ when built again."""

    def __init__(self, needs: dict[str, list[str]], different: Sequence[str] = ()) -> None:
        self.needs, self.different, self.broken = needs, different, False
        super().__init__(self._play)

    def _play(self, argv: Sequence[str], on_stderr_line: LineSink | None) -> Completed:
        said, status = "", 0
        if "--version" in argv:
            said = "nix (Nix) 2.8.0"
        elif "--requisites" in argv:
            said = "\n".join(self.needs[argv[-1]])
        else:
            wrong = [name for name in self.different if any(name in word for word in argv)]
            lines = [f"derivation '{name}' may not be deterministic" for name in wrong]
            status = 1 if wrong or self.broken else 0
            assert on_stderr_line is not None
            for line in ["error: no disk"] if self.broken else lines:
                on_stderr_line(f"error: {line}")
        return Completed(
            argv=tuple(argv), exit_status=status, stdout=said.encode(), stderr=b"", peak_bytes=None
        )

    def built(self) -> list[str]:
        return [
            Path(word).name.partition(".drv")[0]
            for call in self.calls
            if "build" in call
            for word in call
            if ".drv" in word
        ]


def test_what_hosts_share_is_built_again_once(tmp_path: Path) -> None:
    a, b, c = (derivation(tmp_path, name) for name in "abc")
    fake = FakeBuilds({"/web": [a, b], "/db": [b, c]}, different=[b])
    nix, known = Nix(runner=fake, settings=NixSettings()), dict[str, bool]()
    web, db = (rebuild(nix, host, known) for host in ("/web", "/db"))
    assert fake.built() == ["a", "b", "c"]
    assert (web.tried, web.different) == ((a, b), (b,))
    # What differs is a finding on each host that has it.
    assert (db.tried, db.different) == ((b, c), (b,))


def test_what_could_not_be_built_is_tried_again(tmp_path: Path) -> None:
    a = derivation(tmp_path, "a")
    fake = FakeBuilds({"/web": [a]})
    fake.broken = True
    nix, known = Nix(runner=fake, settings=NixSettings()), dict[str, bool]()
    assert rebuild(nix, "/web", known).failures
    fake.broken = False
    assert rebuild(nix, "/web", known) == rebuild(nix, "/web", known)
    assert fake.built() == ["a", "a"]
