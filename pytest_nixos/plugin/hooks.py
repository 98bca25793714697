"""The pytest plugin: declares options and hooks; where hosts are given, registers the rest.

Without ``--nixos-flake`` it stays out of the way of any other run, but for one thing: a check that needs a
host is refused, so that it can never judge the developer's own machine. Heavy modules load only when needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_nixos.errors import NixosError
from pytest_nixos.local.text import printable_lines
from pytest_nixos.plugin.options import Settings, add_options

__all__: list[str] = []

MARKERS = (
    "nixos_control(id): the control of the catalogue that this test judges",
    "nixos_hosts(*globs): run only for hosts whose name matches one of the globs",
    "nixos_requires(*places): run only where the machine is one of: vm, container, bare-metal, boot-loader (a VM with one)",
    "nixos_rests_on(*subjects): what has to work for this test to judge its control, as unit:sshd.service; a failure is the echo of a finding that blames it",
    "nixos_last_look: runs when the tests that leave the machine as it is have run",
    "nixos_destructive: changes the machine; runs after the other tests of its host",
)
_CHECKS = "pytest_nixos.checks."


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare options and ini settings."""
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that other plugins may implement."""
    from pytest_nixos.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Declare markers; where hosts are given, register what tests them."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    try:
        settings = Settings.from_config(config)
        if settings.active:
            from pytest_nixos.plugin.run_hooks import activate

            activate(config, settings)
        else:
            config.pluginmanager.register(WithoutHosts(), "nixos-without-hosts")
    except NixosError as err:
        raise pytest.UsageError(printable_lines(str(err))) from err


class WithoutHosts:
    """Registered where no host is given: refuses checks that need one."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Stop before any check could run against the developer's own machine."""
        homeless = [item for item in items if _needs_host(item)]
        if not homeless:
            return
        names = "".join(f"\n  {item.nodeid}" for item in homeless[:5])
        more = f"\n  ... and {len(homeless) - 5} more" if len(homeless) > 5 else ""
        raise pytest.UsageError(
            f"{len(homeless)} tests need a NixOS host and none was given:{names}{more}\n"
            "  remedy: add --nixos-flake REF#HOST, for example --nixos-flake .#myhost"
        )


def _needs_host(item: pytest.Item) -> bool:
    module = getattr(item, "module", None)
    return (
        getattr(module, "__name__", "").startswith(_CHECKS)
        or any(name.startswith("nixos_") for name in getattr(item, "fixturenames", ()))
        or any(marker.name.startswith("nixos_") for marker in item.iter_markers())
    )
