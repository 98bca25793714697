"""Where a Nix file binds an option."""

from typing import Any

import pytest

from pytest_nixos.nix.config.bindings import find_binding

MODULE = """\
{ config, lib, ... }:
let
  common = { services.openssh.enable = false; };
in
{
  imports = [ common ./other.nix ];
  options.my.enable = lib.mkEnableOption "it";
  config = lib.mkIf config.my.enable (lib.mkMerge [
    {
      services.openssh = {
        enable = true;
        settings."PermitRootLogin" = lib.mkForce "yes";
      };
    }
    { networking.firewall.allowedTCPPorts = [ 22 ]; }
  ]);
}
"""


def spot(text: str, *path: str, **told: Any) -> tuple[int, int] | None:
    found = find_binding(text, path, **told)
    return None if found is None else (found.line, found.column)


def test_path_is_followed_through_sets_conditions_and_merges() -> None:
    assert spot(MODULE, "networking", "firewall", "allowedTCPPorts") == (15, 7)
    assert spot(MODULE, "services", "openssh", "settings", "PermitRootLogin") == (12, 9)


def test_declaration_of_an_option_is_not_its_definition() -> None:
    assert spot(MODULE, "my", "enable") is None
    assert spot(MODULE, "options", "my", "enable") == (7, 3)


def test_priority_and_value_choose_among_several() -> None:
    text = """{ lib, ... }: {
  config = lib.mkMerge [
    { a.b = lib.mkDefault 1; }
    { a.b = 2; }
    { a.b = 3; }
  ];
}
"""
    assert spot(text, "a", "b", priority="mkDefault") == (3, 7)
    assert spot(text, "a", "b", value=3) == (5, 7)
    assert spot(text, "a", "b") is None, "nobody knows which of the two is meant"


def test_host_tells_hosts_of_one_file_apart() -> None:
    text = """{
  outputs = { nixpkgs, ... }: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem { modules = [ { a.b = 1; } ]; };
    nixosConfigurations.db = nixpkgs.lib.nixosSystem { modules = [ { a.b = 1; } ]; };
  };
}
"""
    assert spot(text, "a", "b", host="db") == (4, 70)
    assert spot(text, "nixosConfigurations", "web") == (3, 5)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "containers.x.config.services.openssh.enable = true;",
        "virtualisation.vmVariant.services.openssh.enable = true;",
        "specialisation.x.configuration = { services.openssh.enable = true; };",
        "containers.x.config = { ... }: { services.openssh.enable = true; };",
        "virtualisation.vmVariant = { ... }: { services.openssh.enable = true; };",
        "x.services.openssh.enable = true;",
        "# services.openssh.enable = true;",
        's = "services.openssh.enable = true;";',
    ],
)
def test_other_systems_comments_and_strings_are_no_definition(elsewhere: str) -> None:
    assert spot(f"{{ {elsewhere} }}", "services", "openssh", "enable") is None


def test_what_is_given_as_a_whole_is_found_by_its_longest_prefix() -> None:
    text = "{ lib, ... }: {\n  services.a = import ./a.nix;\n  inherit (lib) users;\n}\n"
    assert spot(text, "services", "a", "port") == (2, 3)
    assert spot(text, "users", "users") == (3, 17)
    assert spot(text, "services", "b") is None


def test_set_that_is_bound_key_by_key_begins_at_its_first_key() -> None:
    text = "{\n  boot.kernel.sysctl.a = 1;\n  boot.kernel.sysctl.b = 2;\n}\n"
    assert spot(text, "boot", "kernel", "sysctl") == (2, 3)


@pytest.mark.parametrize("text", ["", "{", "((((" * 300, "{ a = ", "\x00\xff", "{ ${x} = 1; }"])
def test_file_that_cannot_be_read_has_no_bindings(text: str) -> None:
    assert spot(text, "a", "b") is None


SEVERAL_HOSTS = """\
{
  outputs = { nixpkgs, ... }:
    let
      host = module: nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ module ]; };
    in
    {
      nixosConfigurations.web = host ({ pkgs, ... }: { networking.firewall.allowedTCPPorts = [ 80 ]; });
      nixosConfigurations.db = host { networking.firewall.allowedTCPPorts = [ 5432 ]; };
      nixosConfigurations.bare = host { };
    };
}
"""


@pytest.mark.parametrize(("host", "found"), [("web", (7, 56)), ("db", (8, 39)), ("bare", None)])
def test_a_line_of_another_host_is_never_meant(host: str, found: tuple[int, int] | None) -> None:
    """Hosts that a function of the flake makes, of a module that is a function or a plain set."""
    path = ("networking", "firewall", "allowedTCPPorts")
    assert spot(SEVERAL_HOSTS, *path, host=host) == found


def test_arguments_of_what_makes_a_host_are_no_options() -> None:
    text = '{ nixosConfigurations.old = nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ ]; }; }'
    assert spot(text, "system", "stateVersion", host="old") is None
