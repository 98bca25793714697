"""The kind about search paths: directories in which others can put a program."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.filesystems.search_path import SearchPath, search_paths
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters

__all__ = ["KINDS"]


def _search_path(
    found: Sequence[SearchPath] | None, parameters: Parameters, _: HostConfig
) -> Sight:
    if found is None:
        return Unseen("the machine did not tell where it looks for programs")
    of_system = parameters["of"] == "system"
    paths = [path for path in found if path.is_of_system is of_system]
    if not paths:
        return Unseen("no account of a person can log in", applicable=False)
    return Seen([f"{path.whose}: {what}" for path in paths for what in path.loose])


KINDS = (
    Kind(
        name="search-path",
        reads="directories in a search path (PATH) in which others can put a program",
        probe=lambda _, __: search_paths(),
        find=_search_path,
        parameters={"of": Parameter(required=True, choices=("system", "users"))},
    ),
)
