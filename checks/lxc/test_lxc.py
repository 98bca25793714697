"""Containers for Proxmox: the template builds, and is an archive with a system in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nixos import BuildError, Evidence, Flake, HostConfig, not_applicable

_INIT = "sbin/init"
_SHOWN = 5


@pytest.mark.nixos_control("LXC-001")
def test_the_template_builds(
    nixos_flake: Flake,
    nixos_host_config: HostConfig,
    nixos_evidence: Evidence,
    nixos_progress: Callable[[str], None],
    tmp_path: Path,
) -> None:
    name = nixos_host_config.name
    nixos_progress(f"building the Proxmox template of {name}")
    nixos_evidence.expect(f"tarball/*.tar.* with /{_INIT}")
    try:
        built = nixos_flake.container_template(name, gc_root=tmp_path / "template")
    except BuildError as err:
        nixos_evidence.attach("build", err.detail or err.message)
        nixos_evidence.observe(err.message)
        pytest.fail(f"the template cannot be built: {err.message}", pytrace=False)
    if built is None:
        not_applicable("the host has no system.build.tarball")
    archives = sorted(built.glob("tarball/*.tar.*")) if built.is_dir() else [built]
    if not archives:
        found = [str(path.relative_to(built)) for path in sorted(built.rglob("*"))[:_SHOWN]]
        nixos_evidence.observe({"built": str(built), "files": found})
        pytest.fail("what was built holds no tarball", pytrace=False)
    size_mib = archives[0].stat().st_size / 2**20
    problem = _problem(archives[0])
    nixos_evidence.observe(
        problem or {"archive": archives[0].name, "MiB": round(size_mib, 1), _INIT: "there"}
    )
    assert problem is None, f"{archives[0].name}: {problem}"


def _problem(archive: Path) -> str | None:
    """Say what is wrong with a template, ``None`` if it can be unpacked and has an init."""
    import tarfile

    try:
        with tarfile.open(archive) as content:
            for member in content:
                if member.name.removeprefix("./").lstrip("/") == _INIT:
                    return None
    except (tarfile.TarError, EOFError, OSError) as err:
        return f"is no archive: {str(err).splitlines()[0].rstrip(' :')}"
    return f"has no /{_INIT}"
