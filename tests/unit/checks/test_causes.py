"""A mount, a secret or an activation that failed is told once, first, with what is down for want of
it: variants of the field cases, on recorded observations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from checks.boot import test_boot as boot
from checks.units import test_mounts as mounts
from pytest_nixos.findings import Evidence, Finding, Outcome, Severity
from pytest_nixos.machine.base import Machine
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.observe.filesystems.file import FileState
from pytest_nixos.observe.filesystems.mount import Mount, MountTable, parse_fstab
from pytest_nixos.observe.network.internet import NeedsOfMachine
from pytest_nixos.observe.store import Observations
from pytest_nixos.observe.systemd.activation import ActivationFailure, BootActivation
from pytest_nixos.observe.systemd.unit import UnitState
from pytest_nixos.report.summary.causes import explained
from pytest_nixos.subject import Subject
from tests.unit.standards.samples import host_config

Json = Any


class Recorded:
    """Observations by the names of their probes; files that are not said are not there."""

    def __init__(self, journals: Mapping[str, str], **seen: Json) -> None:
        self.journals, self.seen = journals, seen

    def of(self, probe: Any) -> Json:
        if probe.name.startswith("journal:"):
            return self.journals.get(probe.name.removeprefix("journal:"), "").split("\n")
        if probe.name == "secrets-that-are-named":
            there = self.seen.get("secrets", ())
            return _Files({path: (_file(path),) for path in there})
        return self.seen[probe.name.replace("-", "_")]


class _Files(dict[str, tuple[FileState, ...]]):
    def __missing__(self, key: str) -> tuple[FileState, ...]:
        return ()

    def __contains__(self, key: object) -> bool:
        return True


def _file(path: str) -> FileState:
    return FileState(
        path=path, mode="400", owner="root", group="root", type="regular file", content=""
    )


#: A guest that reaches the internet: every failure is its own.
ONLINE = NeedsOfMachine(no_way_out=None, observations=lambda: None)


class Silent:
    """A machine whose console says nothing."""

    class console:  # noqa: N801 - as the machine calls it
        lines = ()


def service(name: str, **settings: tuple[str, ...]) -> Unit:
    return Unit(
        name=name, enabled=True, settings={"Service": settings}, wanted_by=("multi-user.target",)
    )


def state(name: str, active: str, status: str = "0") -> UnitState:
    return UnitState(
        name=name,
        properties={
            "LoadState": "loaded", "FragmentPath": "/x", "ActiveState": active, "ExecMainStatus": status,
        },
    )  # fmt: skip


def finding(control: str, check: Callable[..., None], *arguments: object) -> Finding:
    """Run a check as the plugin does, and make its finding."""
    evidence = Evidence()
    outcome, reason = Outcome.PASSED, ""
    try:
        check(*arguments, evidence)
    except AssertionError as err:
        outcome, reason = Outcome.FAILED, str(err).split("\n", maxsplit=1)[0]
    except pytest.skip.Exception as err:
        outcome, reason = Outcome.NOT_APPLICABLE, str(err)
    return made(control, outcome, reason, evidence)


def made(
    control: str, outcome: Outcome, reason: str = "", evidence: Evidence | None = None
) -> Finding:
    evidence = evidence or Evidence()
    return Finding(
        control=control, title="", suite="", host="it", backend="container", severity=Severity.HIGH,
        outcome=outcome, judged_on="machine", reason=reason, threat="", remedy="",
        rests_on=tuple(evidence.rests_on), blames=tuple(evidence.blames),
    )  # fmt: skip


def judged(
    units: list[Unit],
    failed: Mapping[str, str],
    *,
    journals: Mapping[str, str] | None = None,
    snippets: tuple[str, ...] = (),
    fstab: str = "",
    mounted: tuple[str, ...] = (),
    there: tuple[str, ...] = (),
    resting: tuple[str, ...] = (),
) -> tuple[Finding, ...]:
    """Return the findings of one host, causes first.

    :param failed: unit to the exit status of its main process.
    :param snippets: those of the activation that failed, each with what it said after a colon.
    :param resting: units on each of which a further failed control rests.
    """
    host = host_config(units={unit.name: unit for unit in units})
    active = {u.name: state(u.name, "active") for u in units}
    states = {**active, **{name: state(name, "failed", code) for name, code in failed.items()}}
    failures = tuple(
        ActivationFailure(snippet=name, status=1, said=(said,))
        for name, _, said in (snippet.partition(": ") for snippet in snippets)
    )
    table = MountTable(
        mounts=tuple(
            Mount(path=path, root="/", filesystem="ext4", source="/dev/x", options=("rw",),
                  super_options=(), device_number="8:1")
            for path in mounted
        )
    )  # fmt: skip
    seen = Recorded(
        journals or {},
        failed_units=sorted(failed),
        down_for_want=states,
        boot_activation=BootActivation(told=True, failures=failures),
        fstab=parse_fstab(fstab) if fstab else None,
        mount=table,
        swap=_NoSwap(),
        secrets=there,
    )
    store = cast("Observations", seen)
    machine = cast("Machine", Silent())
    echoes = []
    for number, name in enumerate(resting):
        evidence = Evidence()
        evidence.rest_on("unit", name)
        echoes.append(made(f"ECHO-{number}", Outcome.FAILED, "", evidence))
    return explained(
        [
            *echoes,
            finding("BOOT-001", boot.test_no_unit_has_failed, host, store, ONLINE),
            finding(
                "BOOT-006",
                boot.test_activation_of_this_boot_had_no_errors,
                machine,
                host,
                store,
                "vm",
            ),
            finding(
                "UNIT-007",
                mounts.test_every_mount_and_swap_of_the_table_is_there,
                host,
                store,
                ONLINE,
            ),
        ]
    )


class _NoSwap:
    areas = ()


def causes(findings: tuple[Finding, ...]) -> list[str]:
    return [f.control for f in findings if f.outcome is Outcome.FAILED and not f.caused_by]


def of(findings: tuple[Finding, ...], control: str) -> Finding:
    return next(f for f in findings if f.control == control)


WEB = service("web.service", LoadCredential=("token:/run/secrets/token",))


def test_a_secret_that_was_not_decrypted_is_one_cause() -> None:
    found = judged(
        [WEB], {"web.service": "243"}, snippets=("setupSecrets",), resting=("web.service",)
    )
    assert causes(found) == ["BOOT-006"]
    assert set(found[0].explains) == {"BOOT-001", "ECHO-0"}
    assert Subject.parse("secret:/run/secrets/token") in found[0].blames


def test_agenix_and_a_service_that_names_its_secret_in_the_journal_only() -> None:
    mail = service("mail.service", ExecStart=("/nix/store/x/bin/start",))
    found = judged(
        [mail],
        {"mail.service": "1"},
        journals={"mail.service": "cat: /run/agenix/smtp: No such file or directory"},
        snippets=("agenixInstall",),
        resting=("mail.service",),
    )
    assert causes(found) == ["BOOT-006"]


def test_a_user_that_the_activation_did_not_make() -> None:
    app = service("app.service", User=("app",))
    found = judged([app], {"app.service": "217"}, snippets=("users",), resting=("app.service",))
    assert causes(found) == ["BOOT-006"]


def test_a_directory_that_the_activation_did_not_make() -> None:
    app = service("app.service", WorkingDirectory=("/srv/app",))
    said = "dirs: mkdir: cannot create directory '/srv/app': Read-only file system"
    found = judged([app], {"app.service": "200"}, snippets=(said,), resting=("app.service",))
    assert causes(found) == ["BOOT-006"]
    # One that says nothing of it explains nothing, whatever systemd could not set up.
    apart = judged([app], {"app.service": "200"}, snippets=("motd",), resting=("app.service",))
    assert causes(apart) == ["BOOT-001", "BOOT-006"]


def test_an_activation_that_failed_is_not_the_cause_of_everything() -> None:
    app = service("app.service", ExecStart=("/nix/store/x/bin/app",))
    found = judged([app], {"app.service": "1"}, snippets=("motd",), resting=("app.service",))
    assert causes(found) == ["BOOT-001", "BOOT-006"]
    assert of(found, "ECHO-0").caused_by == ("BOOT-001",)


def test_a_snippet_that_makes_no_secrets_is_not_why_one_is_missing() -> None:
    found = judged([WEB], {"web.service": "243"}, snippets=("etc",))
    assert causes(found) == ["BOOT-001", "BOOT-006"]
    named = ("link: cannot stat '/run/secrets/token'",)
    assert causes(judged([WEB], {"web.service": "243"}, snippets=named)) == ["BOOT-006"]


def test_a_secret_that_is_there_explains_nothing() -> None:
    found = judged([WEB], {"web.service": "1"}, snippets=("motd",), there=("/run/secrets/token",))
    assert causes(found) == ["BOOT-001", "BOOT-006"]


DATA = "/dev/disk/by-label/data /data ext4 nofail 0 2\n"


def test_a_disk_that_is_not_there_is_one_cause() -> None:
    archive = service("archive.service", ReadWritePaths=("/data/archive",))
    found = judged(
        [archive],
        {"archive.service": "226", "data.mount": "0", r"dev-disk-by\x2dlabel-data.device": "0"},
        fstab=DATA,
        mounted=("/",),
        resting=("archive.service",),
    )
    assert causes(found) == ["UNIT-007"]
    assert set(found[0].explains) == {"BOOT-001", "ECHO-0"}


def test_a_database_on_a_mount_of_its_own() -> None:
    database = service("db.service", StateDirectory=("db",))
    found = judged(
        [database, service("other.service")],
        {"db.service": "1", r"var-lib-db.mount": "32"},
        fstab="tank/db /var/lib/db zfs nofail 0 0\n",
        mounted=("/",),
        resting=("db.service",),
    )
    assert causes(found) == ["UNIT-007"]


def test_a_unit_that_failed_by_itself_stays_a_cause_beside_a_mount() -> None:
    units = [service("archive.service", WorkingDirectory=("/data",)), service("other.service")]
    found = judged(
        units,
        {"archive.service": "200", "other.service": "1", "data.mount": "32"},
        fstab=DATA,
        mounted=("/",),
        resting=("archive.service", "other.service"),
    )
    assert causes(found) == ["BOOT-001", "UNIT-007"]
    assert of(found, "ECHO-0").caused_by == ("UNIT-007",)
    assert of(found, "ECHO-1").caused_by == ("BOOT-001",)


def test_a_swap_file_that_is_not_there() -> None:
    found = judged(
        [], {"var-swapfile.swap": "255"}, fstab="/var/swapfile none swap defaults\n", mounted=("/",)
    )
    assert causes(found) == ["UNIT-007"]


@pytest.mark.parametrize(
    ("path", "kind", "unit"),
    [
        ("/data", "mount", "data.mount"),
        ("/", "mount", "-.mount"),
        ("/dev/disk/by-label/a b", "device", r"dev-disk-by\x2dlabel-a\x20b.device"),
        ("/srv/.x", "mount", r"srv-.x.mount"),
        ("/.x", "mount", r"\x2ex.mount"),
    ],
)
def test_paths_become_units_as_systemd_spells_them(path: str, kind: str, unit: str) -> None:
    assert mounts.unit_of_path(path, kind) == unit


def test_a_host_in_order_has_no_cause() -> None:
    found = judged([WEB], {}, fstab=DATA, mounted=("/", "/data"), there=("/run/secrets/token",))
    assert causes(found) == []
