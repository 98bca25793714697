"""Containers that somebody made by hand: by the probe in this machine's bash, and judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.observe.oci_container import OciContainer, OciContainers, oci_containers
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import ask, moved, parsed
from tests.unit.standards.samples import host_config

#: As podman 4.3 and docker 28.2 print them; what is not read is left out.
PODMAN = [
    {"Names": ["web"], "Labels": {"PODMAN_SYSTEMD_UNIT": "podman-web.service"}, "IsInfra": False},
    {"Names": ["byhand"], "Labels": None, "IsInfra": False},
    {"Names": ["1f2e-infra"], "Labels": None, "IsInfra": True},
]
DOCKER = {
    "Names": "shop-db-1",
    "Labels": "a=1,com.docker.compose.project.config_files=/root/a.yml,/root/b.yml,z=2",
    "State": "exited",
}


def answer(podman: object = None, docker: object = None, *, quadlets: str = "") -> str:
    parts = []
    if podman is not None:
        parts += ["=podman", json.dumps(podman)]
    if docker is not None:
        parts += ["=docker", json.dumps(docker)]
    engines = " ".join(n for n, v in (("podman", podman), ("docker", docker)) if v is not None)
    return "\n".join([*parts, "=quadlets", quadlets, "=engines", engines, "=complete", ""])


def verdict(found: OciContainers | None, *units: str) -> Verdict:
    declared = {
        name: Unit.parse(name, {"enabled": True, "text": "", "wantedBy": []}) for name in units
    }
    control = load_catalogue().control("DRIFT-005")
    config = host_config(units=declared)
    return judge(control, config, {"oci-drift": found}, BackendName.SSH)


def of(*containers: OciContainer, quadlets: tuple[str, ...] = ()) -> OciContainers:
    return OciContainers(engines=("podman",), containers=containers, quadlets=quadlets)


def test_what_both_engines_print() -> None:
    found = parsed(oci_containers(), answer(PODMAN, DOCKER, quadlets="cache.container"))
    assert found is not None
    assert found.engines == ("podman", "docker")
    assert [c.name for c in found.containers] == ["web", "byhand", "shop-db-1"]
    assert found.containers[0].unit == "podman-web.service"
    assert found.containers[2].compose_files == ("/root/a.yml", "/root/b.yml")
    assert found.quadlets == ("cache.container",)


def test_a_docker_that_is_podman_lists_each_once() -> None:
    found = parsed(oci_containers(), answer(PODMAN, {"Names": ["byhand"], "Labels": {}}))
    assert found is not None
    assert [c.name for c in found.containers] == ["web", "byhand"]


@pytest.mark.parametrize("text", ["=podman\n[1]\n=complete\n", "=podman\nno\n=complete\n", ""])
def test_what_is_no_answer_is_none(text: str) -> None:
    found = parsed(oci_containers(), text)
    assert found is None
    assert verdict(found).outcome is not Outcome.PASSED
    assert "does not tell" in verdict(found).reason


def test_an_engine_that_fails_is_no_answer(tmp_path: Path) -> None:
    podman = tmp_path / "podman"
    podman.write_text("#!/bin/sh\nexit 125\n")
    podman.chmod(0o755)
    probe = moved(oci_containers(), "podman ps", f"{podman} ps")
    assert ask(moved(probe, "command -v podman", "true")) is None


def test_a_daemon_that_does_not_run_is_not_started() -> None:
    probe = moved(oci_containers(), "command -v podman", "false")
    found = ask(moved(probe, "systemctl --quiet is-active docker.service", "false"))
    assert found is not None
    assert found.engines == ()
    assert "neither podman nor docker" in verdict(found).reason


def test_what_the_host_starts_is_declared() -> None:
    by_name = OciContainer(engine="podman", name="db")
    by_label = OciContainer(engine="podman", name="x", unit="my-web.service")
    by_quadlet = OciContainer(engine="podman", name="systemd-cache", unit="cache.service")
    composed = OciContainer(engine="podman", name="y", compose_files=("/nix/store/x-a.yml",))
    seen = of(by_name, by_label, by_quadlet, composed, quadlets=("cache.container",))
    good = verdict(seen, "podman-db.service", "my-web.service")
    assert good.outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "container",
    [
        OciContainer(engine="podman", name="toy"),
        OciContainer(engine="podman", name="toy", unit="gone.service"),
        OciContainer(engine="podman", name="toy", compose_files=("/nix/store/x", "/root/b.yml")),
        OciContainer(engine="docker", name="db"),
    ],
)
def test_what_nothing_of_the_host_starts_is_told(container: OciContainer) -> None:
    bad = verdict(of(container), "podman-db.service")
    assert bad.outcome is Outcome.FAILED
    assert f"{container.name} ({container.engine})" in str(bad.observed)


def test_a_host_that_starts_containers_by_itself_is_not_judged() -> None:
    found = of(OciContainer(engine="docker", name="runner-1"))
    assert verdict(found, "gitlab-runner.service").outcome is Outcome.NOT_APPLICABLE
