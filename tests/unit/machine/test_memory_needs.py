"""How much memory a machine gets, and what is refused before it boots."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from pytest_nixos.local.memory import HostMemoryError
from pytest_nixos.machine.memory_needs import (
    BASE_MIB,
    MemoryPlan,
    machines_at_once,
    memory_needs,
    plan_memory,
)
from pytest_nixos.nix.config.declared import FileSystem, OllamaSettings, VmSettings
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit
from tests.unit.standards.samples import host_config

GIB = 1 << 30


def unit(name: str, **service: str) -> Unit:
    settings: Mapping[str, Mapping[str, tuple[str, ...]]] = {
        "Service": {key: (value,) for key, value in service.items()}
    }
    return Unit(name=name, enabled=True, settings=settings, wanted_by=("multi-user.target",))


def host(*units: Unit, memory_mib: int = 1024) -> HostConfig:
    vm = VmSettings(memory_mib=memory_mib, cores=1, graphics=False, restrict_network=True)
    return replace(host_config(), units={u.name: u for u in units}, vm=vm)


def plan(made: HostConfig, *, asked: int | None = None, **more: int | bool) -> MemoryPlan:
    given = {"total": 24 * GIB, "available": 16 * GIB, **more}
    return plan_memory(made, asked_mib=asked, **given)  # type: ignore[arg-type]


def test_a_small_host_keeps_what_build_vm_gives() -> None:
    assert plan(host(unit("sshd.service"), unit("nginx.service"))) == MemoryPlan(mib=None)


def test_a_host_with_many_containers_gets_more_and_is_told() -> None:
    made = host(
        *(unit(f"container@c{n}.service") for n in range(4)),
        *(unit(f"podman-p{n}.service") for n in range(6)),
        unit("postgresql.service"),
        unit("container@.service"),
    )
    found = plan(made)
    assert found.mib is not None and found.mib >= BASE_MIB + 10 * 192 + 256
    assert found.told == (
        "2,688 MiB of memory instead of 1,024: 6 times OCI container 1,152, "
        "4 times nspawn container 768, PostgreSQL 256"
    )


@pytest.mark.parametrize(
    ("made", "mib"),
    [
        (unit("app.service", ExecStart="/nix/store/x-jre/bin/java -Xmx2g -jar app.jar"), 2240),
        (unit("app.service", Environment="JAVA_OPTS=-Xmx512m"), 704),
        (unit("app.service", ExecStart="/nix/store/x-jre/bin/java -jar app.jar"), 512),
        (unit("javascript.service", ExecStart="/bin/javac-like x"), 0),
        (unit("app.service", MemoryMin="1.5G"), 1536),
        (unit("app.service", MemoryMin="10%"), 0),
        (unit("app.service", MemoryMax="8G"), 0),
        (unit("elasticsearch.service", MemoryMax="1G"), 1024),
        (unit("elasticsearch.service", MemoryMax="infinity"), 2048),
        (replace(unit("elasticsearch.service"), enabled=False), 0),
    ],
)
def test_what_a_unit_needs_is_its_own_word_before_the_table(made: Unit, mib: int) -> None:
    assert sum(need.mib for need in memory_needs(host(made))) == mib


def test_models_and_zfs_count() -> None:
    ollama = OllamaSettings(
        host="127.0.0.1",
        port=11434,
        models=("llama3.2:3b", "qwen2.5:0.5b"),
        open_firewall=False,
        acceleration=None,
        environment={},
    )
    zfs = FileSystem(mount_point="/", device="tank/root", fs_type="zfs", options=())
    made = replace(host(), ollama=ollama, file_systems={"/": zfs})

    assert {n.what: n.mib for n in memory_needs(made)} == {"ZFS": 512}
    assert {n.what: n.mib for n in memory_needs(made, models=True)} == {
        "ZFS": 512,
        "the largest model": 2356,
    }


def test_what_people_or_the_host_ask_for_stays() -> None:
    heavy = unit("elasticsearch.service")
    assert plan(host(heavy), asked=600) == MemoryPlan(mib=600)
    assert plan(host(heavy, memory_mib=1536)) == MemoryPlan(mib=None)


def test_a_container_keeps_its_share_of_this_machine() -> None:
    made = replace(host(unit("elasticsearch.service")), vm=None)
    assert plan(made) == MemoryPlan(mib=None)
    with pytest.raises(HostMemoryError):
        plan(made, total=GIB)


def test_a_host_gets_what_there_is_where_that_is_less() -> None:
    made = host(unit("elasticsearch.service"), unit("gitlab.service"))
    found = plan(made, available=4 * GIB)
    assert found.mib == 4096 - 512
    assert "about 6,656 MiB would be needed, this machine has 4,096 available" in found.told
    assert plan(made, available=8 * GIB, machines=4).mib == 1920
    assert plan(made, available=1 * GIB).mib == 1024


@pytest.mark.parametrize(
    ("made", "asked", "who"),
    [
        (host(), 9000, "--nixos-memory asks for 9,000 MiB"),
        (host(memory_mib=65536), None, "virtualisation.memorySize asks for 65,536 MiB"),
        (
            host(unit("app.service", ExecStart="java -Xmx28g -jar a.jar")),
            None,
            "its services (app 28,864) need about 29,440 MiB",
        ),
    ],
)
def test_a_host_that_needs_more_than_there_is_is_one_clear_error(
    made: HostConfig, asked: int | None, who: str
) -> None:
    with pytest.raises(HostMemoryError) as caught:
        plan(made, asked=asked, total=8 * GIB)
    assert who in caught.value.message and "8,192 MiB in all" in caught.value.message
    assert "--nixos-memory" in caught.value.remedy


def test_workers_share_this_machine() -> None:
    assert machines_at_once({}) == 1
    assert machines_at_once({"PYTEST_XDIST_WORKER_COUNT": "4"}) == 4
    assert machines_at_once({"PYTEST_XDIST_WORKER_COUNT": "x"}) == 1
