"""testinfra on NixOS: the backend over a machine's root channel, and modules that answer right.

This package alone imports testinfra.
"""

from pytest_nixos.testinfra.backend import NixosBackend
from pytest_nixos.testinfra.host import MODULES, NixosHost, make_host
from pytest_nixos.testinfra.scheme import nixos_scheme

__all__ = ["MODULES", "NixosBackend", "NixosHost", "make_host", "nixos_scheme"]
