"""The closure of a host's system, built where it is not, and scanned for secrets; no machine is
started.
"""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.plugin.progress import Progress
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.standards.sources.closure_scan import Closure, scan_closure
from pytest_nixos.standards.sources.flake_files import StoreScan
from pytest_nixos.standards.sources.scan_cache import ScanCache, ScanFile

__all__ = ["scan_host"]


def scan_host(
    session: NixosSession, key: str, *, flake: Path | None, progress: Progress
) -> StoreScan | None:
    """Scan what the host's system needs at run time.

    :param flake: the flake's source in the store.
    :return: ``None`` for a live host whose system is not in the store of this machine.
    :raises BuildError: if it is of another system that nobody builds, or the system is not built yet and cannot be.
    """
    host = session.host_config(key)
    toplevel = Path(host.toplevel)
    live = session.backend_name(key).runs_already
    if live and not toplevel.exists():
        return None
    if toplevel.exists():
        return _scan(session, host, flake)
    foreign = session.entry(key).foreign
    if foreign is not None and foreign.not_built is not None:
        raise foreign.not_built
    with run_directory() as directory:
        session.flake(key).build(
            host, gc_root=directory.path / "system", on_progress=progress.build
        )
        return _scan(session, host, flake)


def _scan(session: NixosSession, host: HostConfig, flake: Path | None) -> StoreScan:
    toplevel = Path(host.toplevel)
    closure = Closure(paths=session.flakes.nix.closure(toplevel), toplevel=toplevel, flake=flake)
    return scan_closure(closure, cache=ScanCache(file=ScanFile.of_user().path))
