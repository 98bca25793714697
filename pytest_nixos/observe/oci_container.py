"""OCI containers that root's podman and the daemon of docker know, whoever made them, running or
not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import names, read_json

__all__ = ["OciContainer", "OciContainers", "oci_containers"]

Json = Any

# Asking docker through its socket would start a daemon that is only waiting for somebody to ask.
# A quadlet becomes a unit when systemd loads it, podman-systemd.unit(5).
_READ = r"""
engines=
if command -v podman >/dev/null; then
  engines=podman
  title podman
  podman ps --all --format json || exit 4
fi
if command -v docker >/dev/null && systemctl --quiet is-active docker.service; then
  engines="$engines docker"
  title docker
  docker ps --all --no-trunc --format '{{json .}}' || exit 5
fi
title quadlets
for file in /etc/containers/systemd/*.container /etc/containers/systemd/*.kube; do
  [ -e "$file" ] && printf '%s\n' "${file##*/}"
done
title engines
echo $engines
title complete
true
"""
_UNIT = "PODMAN_SYSTEMD_UNIT"
# What docker compose and podman-compose leave.
_FILES = "com.docker.compose.project.config_files"
_FOLDER = "com.docker.compose.project.working_dir"


class OciContainer(msgspec.Struct, frozen=True, kw_only=True):
    """One container.

    :param unit: the unit that says it started it, ``""`` if none does; podman only.
    :param compose_files: files of the compose project that it belongs to, else its folder.
    """

    engine: str
    name: str
    unit: str = ""
    compose_files: tuple[str, ...] = ()


class OciContainers(msgspec.Struct, frozen=True, kw_only=True):
    """What the engines know.

    :param engines: those that were asked; a daemon that does not run is not.
    :param quadlets: names of files that podman makes units of, such as ``web.container``.
    """

    engines: tuple[str, ...]
    containers: tuple[OciContainer, ...]
    quadlets: tuple[str, ...]


def oci_containers() -> Probe[OciContainers | None]:
    """Ask for the containers; ``None`` where an engine does not answer."""
    return Probe(name="oci-containers", script=f"shopt -s nullglob\n{_READ}", parse=_parse)


def _parse(output: ProbeOutput) -> OciContainers | None:
    sections = dict(output.records)
    if output.exit_status != 0 or "complete" not in sections:
        return None
    try:
        podman = list(_podman(sections.get("podman", "")))
        docker = list(_docker(sections.get("docker", "").split("\n")))
    except (ValueError, TypeError):
        return None
    # Where docker is podman by another name, each is listed twice.
    known = {container.name for container in podman}
    return OciContainers(
        engines=tuple(sections.get("engines", "").split()),
        containers=(*podman, *(c for c in docker if c.name not in known)),
        quadlets=tuple(names(sections.get("quadlets", ""))),
    )


def _podman(text: str) -> Iterator[OciContainer]:
    for found in read_json(text) if text.strip() else ():
        container = _container("podman", found)
        # The pause container of a pod belongs to podman.
        if not found.get("IsInfra"):
            yield container


def _docker(lines: Iterable[str]) -> Iterator[OciContainer]:
    for line in lines:
        if line.strip():
            yield _container("docker", read_json(line))


def _container(engine: str, found: Json) -> OciContainer:
    if not isinstance(found, Mapping):
        raise TypeError(f"no container: {found!r}")
    called, labels = found.get("Names"), _labels(found.get("Labels"))
    files = labels.get(_FILES) or labels.get(_FOLDER) or ""
    return OciContainer(
        engine=engine,
        name=str(called[0]) if isinstance(called, list) and called else str(called or "?"),
        unit=labels.get(_UNIT, ""),
        compose_files=tuple(file for file in files.split(",") if file),
    )


def _labels(found: Json) -> Mapping[str, str]:
    """Read podman's mapping or docker's ``a=b,c=d``, where a part without sign belongs to the value
    before it.
    """
    if isinstance(found, Mapping):
        return {str(key): str(value) for key, value in found.items()}
    labels: dict[str, str] = {}
    last = ""
    for part in str(found or "").split(","):
        key, sign, value = part.partition("=")
        if sign:
            labels[key], last = value, key
        elif last:
            labels[last] += f",{part}"
    return labels
