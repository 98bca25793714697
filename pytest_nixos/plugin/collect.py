"""Checks multiplied by host and control, of these the ones that are selected, and their order."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Mapping

import pytest

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.errors import NixosError
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.suites import SuitePackages
from pytest_nixos.standards.control.model import Control
from pytest_nixos.subject import Subject, SubjectKind

__all__ = [
    "CONTROL_FIXTURE",
    "HOST_PARAM",
    "NO_HOST",
    "SHARED_MACHINES",
    "control_of",
    "deselect_hosts",
    "generate_tests",
    "host_key_of",
    "hosts_of",
    "judges_shared_machine",
    "needs_boot_loader",
    "needs_fresh_clone",
    "needs_machine",
    "needs_rebooting_machine",
    "order",
    "runs_as",
    "select",
]

HOST_PARAM = "_nixos_host"
CONTROL_FIXTURE = "nixos_control"
NO_HOST = "no-host"
NAME_MARKERS = ("nixos_control", "nixos_hosts", "nixos_requires", "nixos_rests_on")
# Who asks for these changes the shared machine, marked or not: what happens to its units then is
# the test's doing.
_CHANGING_FIXTURES = frozenset({"nixos_faults", "nixos_generations"})
_BOOT_FAILURE = "nixos_boot_failure"
_SHARED, _FRESH, _REBOOTING = "nixos_machine", "nixos_fresh_machine", "nixos_rebooting_machine"
_OWN_MACHINES = frozenset({_FRESH, _REBOOTING})
#: Fixtures of machines that several tests share.
SHARED_MACHINES = (_SHARED, _REBOOTING)
_MACHINES = frozenset({_SHARED, *_OWN_MACHINES})


def generate_tests(
    metafunc: pytest.Metafunc, session: NixosSession, packages: SuitePackages
) -> None:
    """Multiply a test by the hosts of this run, and by the controls of its suite where it asks
    for one.
    """
    if HOST_PARAM not in metafunc.fixturenames:
        return
    keys = hosts_of(metafunc.definition, session, packages)
    if not keys:
        globs = _marker_args(metafunc.definition, "nixos_hosts")
        reason = f"not applicable: no host of this run matches nixos_hosts({', '.join(globs)})"
        skipped = pytest.param(NO_HOST, marks=pytest.mark.skip(reason=reason))
        metafunc.parametrize(HOST_PARAM, [skipped], ids=[NO_HOST], indirect=True, scope="session")
        return
    metafunc.parametrize(HOST_PARAM, keys, ids=list(keys), indirect=True, scope="session")
    if CONTROL_FIXTURE in metafunc.fixturenames and not _control_ids(metafunc.definition):
        controls = [control for control in session.controls if not control.check]
        metafunc.parametrize(CONTROL_FIXTURE, controls, ids=[c.id for c in controls], indirect=True)


def hosts_of(test: pytest.Item, session: NixosSession, packages: SuitePackages) -> list[str]:
    """Return the hosts of this run that a test is for; of a suite's check those for which it is
    selected.

    Where that is none, the first, so that one test is there to be told as deselected. An item for
    each would cost a large run minutes and memory.
    """
    globs = _marker_args(test, "nixos_hosts")
    keys = [
        key
        for key in session.host_keys
        if not globs or any(fnmatch.fnmatchcase(key, glob) for glob in globs)
    ]
    ids = _control_ids(test)
    named = any("::" in arg for arg in test.config.args)
    if named or not ids or not packages.contains(test.path):
        return keys
    try:
        control = session.control(ids[0])
    except NixosError:
        return keys  # told when items are selected
    return [key for key in keys if _is_judged(control, key, session)] or keys[:1]


def host_key_of(item: pytest.Item) -> str | None:
    """Return the key of the host that an item is for."""
    key = _parameters(item).get(HOST_PARAM)
    return None if key in (None, NO_HOST) else str(key)


def needs_boot_loader(item: pytest.Item) -> bool:
    """Whether a test asks for a VM with a boot loader: ``nixos_requires("boot-loader")``, alone
    or beside places.
    """
    return any(
        BackendName.VM_WITH_BOOT_LOADER in marker.args
        for marker in item.iter_markers("nixos_requires")
    )


def runs_as(backend: BackendName, requires: pytest.Mark) -> bool:
    """Whether a machine of `backend` is what a ``nixos_requires`` marker asks for.

    A VM can have a boot loader; it gets one where a test asks for it.
    """
    wanted = {BackendName.named(word) for word in requires.args}
    loader = backend is BackendName.VM and BackendName.VM_WITH_BOOT_LOADER in wanted
    return backend in wanted or loader


def control_of(item: pytest.Item, session: NixosSession) -> Control | None:
    """Return the control that an item judges, with the profile's parameters and severity.

    :raises CatalogueError: if its ``nixos_control`` marker names none that is known.
    """
    chosen = _parameters(item).get(CONTROL_FIXTURE)
    if isinstance(chosen, Control):
        return session.control(chosen.id)
    ids = _control_ids(item)
    return session.control(ids[0]) if ids else None


def select(
    config: pytest.Config, items: list[pytest.Item], session: NixosSession, packages: SuitePackages
) -> None:
    """Drop what the profile and ``--nixos-suite`` leave out.

    :raises pytest.UsageError: if an item names a control that is not known.
    """
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        _refuse_bad_markers(item)
        _name_control(item, session)
        (kept if _selected(item, session, packages) else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    items[:] = kept


def order(
    items: list[pytest.Item],
    session: NixosSession,
    *,
    first: Callable[[pytest.Item], int] = lambda _: 0,
) -> None:
    """Put the tests of a host together, and of these the ones that judge the boot first and
    destructive ones last.

    A last look at the units stands between: after whatever leaves the machine as it is, before what
    changes it. The tests of a module stay together, because its fixtures may tell one story; only
    data controls tell none.

    :param first: tells which of these are wanted first, by the least number.
    """
    hosts = {key: number for number, key in enumerate(session.host_keys)}
    modules: dict[str, int] = {}
    urgent: dict[str, int] = {}
    for item in items:
        module = item.nodeid.partition("::")[0]
        modules.setdefault(module, len(modules))
        urgent[module] = min(urgent.get(module, first(item)), first(item))

    def place(item: pytest.Item) -> tuple[int, ...]:
        module = item.nodeid.partition("::")[0]
        alone = "nixos_judge" in getattr(item, "fixturenames", ())
        return (
            hosts.get(host_key_of(item) or "", -1),
            _turn(item),
            urgent[module],
            modules[module],
            first(item) if alone else 0,
        )

    items.sort(key=place)


def deselect_hosts(config: pytest.Config, items: list[pytest.Item], keys: Collection[str]) -> None:
    """Drop the tests of hosts that left the run."""
    dropped = [item for item in items if host_key_of(item) in keys]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def needs_machine(item: pytest.Item) -> bool:
    """Whether a test asks for a running machine, and not for the failure of its boot; a data
    control asks later.
    """
    names = set(getattr(item, "fixturenames", ()))
    return _BOOT_FAILURE not in names and not _MACHINES.isdisjoint(names)


def judges_shared_machine(item: pytest.Item) -> bool:
    """Whether the machine that a test runs may be the one that all tests of its host share."""
    names = set(getattr(item, "fixturenames", ()))
    return _SHARED in names or _OWN_MACHINES.isdisjoint(names)


def needs_fresh_clone(item: pytest.Item) -> bool:
    """Whether a test asks for a machine of its own that may be a clone of its host's snapshot."""
    return _FRESH in getattr(item, "fixturenames", ()) and not needs_boot_loader(item)


def needs_rebooting_machine(item: pytest.Item) -> bool:
    """Whether a test asks for the machine for reboots that several tests of a host share."""
    return _REBOOTING in getattr(item, "fixturenames", ())


def _turn(item: pytest.Item) -> int:
    """Return when a test of a host runs: 0 where it judges the boot itself, 1, 2 and 3 as the last
    look, of which those that wait come first, 4 where it changes the machine.
    """
    names = getattr(item, "fixturenames", ())
    if _BOOT_FAILURE in names:
        return 0
    changes = not _CHANGING_FIXTURES.isdisjoint(names)
    if changes or item.get_closest_marker("nixos_destructive") is not None:
        return 4
    last = item.get_closest_marker("nixos_last_look")
    if last is None:
        return 1
    return 2 if last.kwargs.get("waits") else 3


def _name_control(item: pytest.Item, session: NixosSession) -> None:
    """Let people type after ``-k`` what they call the control that an item judges.

    :raises pytest.UsageError: if it names one that is not known.
    """
    try:
        control = control_of(item, session)
    except NixosError as err:
        raise pytest.UsageError(f"{item.nodeid}: {err}") from err
    if control is not None:
        item.extra_keyword_matches |= {control.id, control.suite, control.severity.name}


def _selected(item: pytest.Item, session: NixosSession, packages: SuitePackages) -> bool:
    if not isinstance(_parameters(item).get(CONTROL_FIXTURE), Control | None):
        return False  # pytest's placeholder: the profile selects no data control
    control = control_of(item, session)
    if control is None or not packages.contains(item.path):
        return True
    return _is_judged(control, host_key_of(item), session)


def _is_judged(control: Control, key: str | None, session: NixosSession) -> bool:
    """Whether profile and ``--nixos-suite`` select a control of a suite package for a host."""
    suites = session.settings.suites
    return session.selects(control, key) and (not suites or control.suite in suites)


def _parameters(item: pytest.Item) -> Mapping[str, object]:
    """Return what an item was multiplied by, by the fixture's name; an item of a recording tells
    it itself.
    """
    parameters: Mapping[str, object] = getattr(getattr(item, "callspec", item), "params", {})
    return parameters


def _control_ids(node: pytest.Item) -> list[str]:
    return _marker_args(node, "nixos_control")


def _marker_args(node: pytest.Item, name: str) -> list[str]:
    marker = node.get_closest_marker(name)
    return [] if marker is None else [arg for arg in marker.args if isinstance(arg, str)]


def _refuse_bad_markers(item: pytest.Item) -> None:
    for marker in item.iter_markers():
        if marker.name in NAME_MARKERS:
            _refuse_other_than_names(item, marker)
        if marker.name == "nixos_requires":
            for word in marker.args:
                _refuse_unknown_place(item, word)
        elif marker.name == "nixos_rests_on":
            for word in marker.args:
                _refuse_unknown_subject(item, word)


def _refuse_other_than_names(item: pytest.Item, marker: pytest.Mark) -> None:
    if marker.kwargs or not marker.args or not all(isinstance(a, str) for a in marker.args):
        raise pytest.UsageError(
            f"{item.nodeid}: marker {marker.name} got {marker.args!r} {marker.kwargs or ''}\n"
            f'  remedy: give it names as strings, for example @pytest.mark.{marker.name}("name")'
        )


def _refuse_unknown_subject(item: pytest.Item, word: str) -> None:
    try:
        Subject.parse(word)
    except ValueError as err:
        raise pytest.UsageError(
            f"{item.nodeid}: nixos_rests_on({word!r}): no such kind of subject\n"
            f"  remedy: write KIND:NAME with one of {', '.join(SubjectKind)}"
        ) from err


def _refuse_unknown_place(item: pytest.Item, word: str) -> None:
    try:
        BackendName.named(word)
    except ValueError as err:
        known = ", ".join(sorted(name.place for name in EVERYWHERE))
        raise pytest.UsageError(
            f"{item.nodeid}: nixos_requires({word!r}): a machine cannot be that\n"
            f"  remedy: use {known} or {BackendName.VM_WITH_BOOT_LOADER}"
        ) from err
