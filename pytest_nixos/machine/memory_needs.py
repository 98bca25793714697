"""How much memory a machine gets: what the host's services plausibly need, within what this machine
has.

``build-vm`` gives every guest 1,024 MiB unless its host says otherwise, and few do. The table names
kinds of services by their unit and what one of them holds once it runs and is idle, as their
documentation states it or as it was measured; it is an estimate that errs to the generous side. A
host's own words go before it: a JVM's ``-Xmx``, ``MemoryMin`` as the least, ``MemoryMax`` as the
most that a unit can take.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from pytest_nixos.local.memory import HostMemoryError, available_bytes, total_bytes
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit

__all__ = [
    "BASE_MIB",
    "DEFAULT_MIB",
    "KINDS",
    "MemoryPlan",
    "Need",
    "expected_mib",
    "machines_at_once",
    "memory_needs",
    "plan_memory",
]

#: What nixpkgs' qemu-vm.nix gives a VM whose host says nothing (``virtualisation.memorySize``).
DEFAULT_MIB = 1024
#: Kernel, systemd, journal, network, sshd, the Nix daemon, and room for what tests start.
BASE_MIB = 512
_STEP_MIB = 128
# What stays for this machine's own programs.
_RESERVE_MIB = 512

#: Kinds of services: units by name, MiB of one of them, what people call it.
KINDS: tuple[tuple[re.Pattern[str], int, str], ...] = tuple(
    (re.compile(rf"(?:{pattern})\.service"), mib, what)
    for pattern, mib, what in (
        (r"postgresql", 256, "PostgreSQL"),
        (r"mysql|mariadb", 512, "MySQL"),
        (r"mongodb", 512, "MongoDB"),
        (r"clickhouse", 1024, "ClickHouse"),
        (r"influxdb2?|victoriametrics", 256, "time series database"),
        (r"couchdb|rabbitmq|neo4j", 512, "database"),
        (r"redis(?:-.+)?|memcached", 64, "Redis"),
        (r"elasticsearch|opensearch|graylog", 2048, "Elasticsearch"),
        (r"cassandra", 2048, "Cassandra"),
        (r"apache-kafka|zookeeper", 1024, "JVM"),
        (r"jenkins|keycloak|tomcat|nexus|sonarqube|confluence|jira", 1024, "JVM"),
        (r"unifi|jicofo|jitsi-videobridge2|minecraft-server.*", 1536, "JVM"),
        (r"gitlab", 4096, "GitLab"),
        (r"mastodon-web|discourse", 1024, "Rails"),
        (r"phpfpm-.+", 128, "PHP pool"),
        (r"prometheus|grafana|loki|mimir|tempo|thanos-.+", 256, "monitoring"),
        (r"home-assistant|jellyfin|plex|emby", 512, "media and home"),
        (r"immich-server|paperless-web|open-webui|nextcloud-setup", 768, "web application"),
        (r"immich-machine-learning|frigate", 1536, "machine learning"),
        (r"ollama", 384, "Ollama"),
        (r"gitea|forgejo|matrix-synapse", 384, "web application"),
        (r"clamav-daemon", 1536, "ClamAV"),
        (r"k3s|kubelet|rke2-.+", 1024, "Kubernetes"),
        (r"(?:podman|docker)-.+", 192, "OCI container"),
        (r"container@.+", 192, "nspawn container"),
        (r"docker|libvirtd|incus|lxd", 128, "container engine"),
        (r"display-manager|gdm|greetd|sddm", 1536, "desktop"),
    )
)
_JAVA = re.compile(r"(?:^|[\s/\"'=])java(?:\s|$)")
_HEAP = re.compile(r"-Xmx(\d+)([kKmMgG]?)\b")
_HEAP_MIB = {"": 1 / (1 << 20), "k": 1 / 1024, "m": 1.0, "g": 1024.0}
_JVM_MIB = 512
_JVM_OWN_MIB = 192
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)")
_SIZE_MIB = {"": 1 / (1 << 20), "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024}
# A model of 3 milliards of parameters, quantised as Ollama's library has it, takes 2 GiB.
_MODEL = re.compile(r"[:-](\d+(?:\.\d+)?)(b|m)\b", re.IGNORECASE)
_MIB_PER_MILLIARD = 700
_MODEL_MIB = 4096
_ZFS_MIB = 512
_MOST_TOLD = 5


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What services of one kind need together, in MiB; `count` of them."""

    what: str
    mib: int
    count: int = 1

    def __str__(self) -> str:
        name = self.what if self.count == 1 else f"{self.count} times {self.what}"
        return f"{name} {self.mib:,}"


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much memory a machine gets.

    :param mib: ``None`` for what the host declares.
    :param told: one line for people, ``""`` where nothing was changed.
    """

    mib: int | None
    told: str = ""


def memory_needs(host: HostConfig, *, models: bool = False) -> tuple[Need, ...]:
    """Estimate what the host's services need beside :data:`BASE_MIB`, the most first.

    :param models: whether Ollama's declared models can be pulled, so that one may be loaded.
    """
    mib: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for name, unit in host.units.items():
        if not unit.enabled or "@." in name:
            continue
        what, needs = _of_unit(name, unit)
        if needs:
            mib[what] += needs
            count[what] += 1
    if any(fs.fs_type == "zfs" for fs in host.file_systems.values()):
        mib["ZFS"], count["ZFS"] = _ZFS_MIB, 1
    if models and host.ollama is not None and host.ollama.models:
        mib["the largest model"] = max(_model_mib(model) for model in host.ollama.models)
        count["the largest model"] = 1
    return tuple(Need(what=what, mib=n, count=count[what]) for what, n in mib.most_common())


def expected_mib(host: HostConfig, *, models: bool = False) -> int:
    """Estimate what a machine of the host holds in all, in MiB; see :func:`memory_needs`."""
    return BASE_MIB + sum(need.mib for need in memory_needs(host, models=models))


def plan_memory(
    host: HostConfig,
    *,
    asked_mib: int | None,
    models: bool = False,
    machines: int = 1,
    total: int | None = None,
    available: int | None = None,
) -> MemoryPlan:
    """Decide how much memory the host's machine gets.

    What is asked for by ``--nixos-memory``, or by the host other than nixpkgs' default, stays.

    :param asked_mib: what people asked for.
    :param machines: how many machines this machine starts at once.
    :param total: bytes of this machine's memory, asked of the kernel unless given.
    :param available: bytes of it that can be had now.
    :raises HostMemoryError: if the host needs more than this machine has.
    """
    has_mib = _mib(total_bytes() if total is None else total)
    free_mib = _mib(available_bytes() if available is None else available)
    declared = None if host.vm is None else host.vm.memory_mib
    if asked_mib is not None:
        _refuse(host, asked_mib, has_mib, "--nixos-memory asks for")
        return MemoryPlan(mib=asked_mib)
    if declared is not None and declared != DEFAULT_MIB:
        _refuse(host, declared, has_mib, "virtualisation.memorySize asks for")
        return MemoryPlan(mib=None)
    needs = memory_needs(host, models=models)
    wanted = -(-expected_mib(host, models=models) // _STEP_MIB) * _STEP_MIB
    kept = declared or DEFAULT_MIB
    if wanted <= kept:
        return MemoryPlan(mib=None)
    words = _words(needs)
    _refuse(host, wanted, has_mib, f"its services ({words}) need about")
    if declared is None:  # a container, which is bounded by a share of this machine
        return MemoryPlan(mib=None)
    if free_mib is None:
        return MemoryPlan(mib=wanted, told=_told(wanted, kept, words))
    room = max(kept, (free_mib - _RESERVE_MIB) // max(1, machines))
    if wanted <= room:
        return MemoryPlan(mib=wanted, told=_told(wanted, kept, words))
    return MemoryPlan(
        mib=room,
        told=f"{_told(room, kept, words)}; about {wanted:,} MiB would be needed, "
        f"this machine has {free_mib:,} available",
    )


def machines_at_once(environment: Mapping[str, str] | None = None) -> int:
    """Return how many processes of this run start machines, as pytest-xdist tells."""
    count = (os.environ if environment is None else environment).get(
        "PYTEST_XDIST_WORKER_COUNT", ""
    )
    return int(count) if count.isdigit() and int(count) else 1


def _of_unit(name: str, unit: Unit) -> tuple[str, int]:
    found = next(((what, mib) for pattern, mib, what in KINDS if pattern.fullmatch(name)), None)
    what, needs = found or (name.removesuffix(".service"), 0)
    command = " ".join(
        value for key in ("ExecStart", "Environment") for value in unit.setting("Service", key)
    )
    heaps = [int(float(n) * _HEAP_MIB[u.lower()]) for n, u in _HEAP.findall(command)]
    if heaps:
        needs = max(heaps) + _JVM_OWN_MIB
    elif found is None and _JAVA.search(command):
        needs = _JVM_MIB
    least, most = _setting_mib(unit, "MemoryMin", "MemoryLow"), _setting_mib(unit, "MemoryMax")
    return what, max(least or 0, needs if most is None else min(needs, most))


def _setting_mib(unit: Unit, *keys: str) -> int | None:
    """Read the last size that one of the settings gives; shares and ``infinity`` are none."""
    sizes = [
        int(float(found[1]) * _SIZE_MIB[found[2]])
        for section in ("Service", "Slice")
        for key in keys
        for value in unit.setting(section, key)[-1:]
        if (found := _SIZE.fullmatch(value.strip()))
    ]
    return max(sizes, default=None)


def _model_mib(model: str) -> int:
    sizes = [float(n) * (1 if unit.lower() == "b" else 0.001) for n, unit in _MODEL.findall(model)]
    return int(max(sizes) * _MIB_PER_MILLIARD) + 256 if sizes else _MODEL_MIB


def _words(needs: Sequence[Need]) -> str:
    more = len(needs) - _MOST_TOLD
    told = ", ".join(str(need) for need in needs[:_MOST_TOLD])
    return f"{told}, and {more} more" if more > 0 else told


def _told(mib: int, kept: int, words: str) -> str:
    return f"{mib:,} MiB of memory instead of {kept:,}: {words}"


def _refuse(host: HostConfig, wanted: int, has: int | None, who: str) -> None:
    if has is not None and wanted > has:
        raise HostMemoryError(
            f"{host.name}: {who} {wanted:,} MiB of memory, this machine has {has:,} MiB in all",
            remedy="run it on a machine that has as much, or start it with less: --nixos-memory MIB",
        )


def _mib(size: int | None) -> int | None:
    return None if size is None else size >> 20
