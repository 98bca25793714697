"""The ``host`` fixture: registered only where hosts are given, and last, so that it overrides
testinfra's.

A fixture of an entry point module would lose to testinfra's by entry point order.
"""

from __future__ import annotations

import pytest

from pytest_nixos.machine.base import Machine
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.testinfra import NixosHost, make_host

__all__ = ["host"]


@pytest.fixture(scope="session")
def host(nixos_machine: Machine, nixos_host_config: HostConfig) -> NixosHost:
    """Testinfra's Host of the running machine; see https://testinfra.readthedocs.io.

    Of a home of ``homeConfigurations`` it is the machine as the home's user meets it.
    """
    user = nixos_host_config.home_user
    return make_host(nixos_machine if user is None else nixos_machine.as_user(user))
