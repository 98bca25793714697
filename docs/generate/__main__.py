"""``python -m docs.generate [--check | --site]``: write the pages that are made from code, tell
which are stale, build the site.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import asdict

from checks.life.changes import prebuilt
from checks.rollback.test_rollback import SYSCTL, changed_module
from docs.generate.controls import pages
from docs.generate.plugin import plugin_page
from pytest_nixos.cli.ci import reusable_workflow
from pytest_nixos.nix.config.host_facts import host_facts
from pytest_nixos.nix.expression import option_names
from pytest_nixos.plugin.evaluate import FURTHER_OPTIONS
from pytest_nixos.recording.model import recording_schema
from pytest_nixos.standards.load import Catalogue, load_catalogue, option_paths
from pytest_nixos.standards.profile import load_profiles

__all__ = ["generated", "main"]

DOCS = Path(__file__).parents[1]
CONTROLS = Path("reference/controls")


def generated(*, page_each: bool = False) -> Mapping[Path, str]:
    """Return every page that is made from code, by its path below ``docs``.

    :param page_each: whether each control has a page of its own, as in the built site.
    """
    catalogue = load_catalogue()
    controls = pages(catalogue, load_profiles(catalogue), page_each=page_each)
    return {
        Path("reference/plugin.md"): plugin_page(),
        Path("../.github/workflows/hosts.yml"): reusable_workflow(),
        Path("../nix/asked.json"): asked(catalogue),
        Path("../nix/life.json"): life_generations(),
        Path("../nix/life.nix"): life_modules(),
        Path("../nix/rollback/changed.nix"): changed_module(),
        Path("../nix/rollback/changed-but-sysctl.nix"): changed_module(instances=""),
        Path("reference/recording.schema.json"): recording_schema(),
        **{CONTROLS / path: text for path, text in controls.items()},
    }


def asked(catalogue: Catalogue) -> str:
    """Return what ``lib.checkHost`` asks of a host: what the plugin would, for all bundled controls;
    and the kernel parameter that the suite rollback changes.
    """
    paths = sorted({*option_paths(catalogue), *FURTHER_OPTIONS})
    facts = {name: option_names(fact.path) for name, fact in host_facts().items()}
    options = [{"path": path, "names": option_names(path)} for path in paths]
    lines = ",\n".join(f"    {json.dumps(option)}" for option in options)
    return (
        f'{{\n  "facts": {json.dumps(facts)},\n  "rollbackSysctl": {json.dumps(SYSCTL)},\n'
        f'  "options": [\n{lines}\n  ]\n}}\n'
    )


def life_generations() -> str:
    """Return the generations that the suite life builds, for ``lib.checkHost { life = true; }``."""
    lines = ",\n".join(f"  {json.dumps(asdict(each))}" for each in prebuilt())
    return f"[\n{lines}\n]\n"


def life_modules() -> str:
    """Return the same as modules, in that order: a flake may import what is in it alone."""
    return "[\n" + "\n".join(f"({each.module})" for each in prebuilt()) + "\n]\n"


def main(argv: Sequence[str]) -> int:
    """Write the pages; with ``--check`` only name those that are missing, changed or left over;
    with ``--site`` build the site.
    """
    if "--site" in argv:
        from docs.generate.site import build

        return build(DOCS, generated(page_each=True))
    wanted = generated()
    known = {path.relative_to(DOCS) for path in (DOCS / CONTROLS).rglob("*.md")}
    stale = sorted(known - set(wanted))
    changed = [path for path, text in wanted.items() if _differs(DOCS / path, text)]
    if "--check" in argv:
        sys.stdout.write("".join(f"{path}: not up to date\n" for path in [*changed, *stale]))
        return 1 if changed or stale else 0
    for path in changed:
        (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / path).write_text(wanted[path], encoding="utf-8")
    for path in stale:
        (DOCS / path).unlink()
    sys.stdout.write(f"{len(wanted)} pages, {len(changed)} written, {len(stale)} removed\n")
    return 0


def _differs(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
