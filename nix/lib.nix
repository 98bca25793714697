# This flake's lib: a host's test as a derivation.
{
  lib,
  # From a system to a Python environment with bin/pytest and this plugin.
  pytestOf,
}:
let
  expressions = ../pytest_nixos/nix/expressions;
  asked = builtins.fromJSON (builtins.readFile ./asked.json);
  derivationOf = import ./check-host.nix {
    inherit expressions asked;
    channelScript = builtins.readFile ../pytest_nixos/machine/channel/guest_channel.bash;
  };
  lineOf = import ./judge.nix { inherit expressions asked; };

  # A derivation that fails as a build fails where a check of the host fails. Arguments: see check-host.nix; by default the plugin is
  # this flake's, for the system that builds.
  checkHost =
    arguments:
    let
      system = (arguments.pkgs or arguments.host.pkgs).stdenv.hostPlatform.system;
    in
    derivationOf ({ pytest-nixos = pytestOf system; } // arguments);
in
{
  inherit checkHost;

  # The same functions with another environment, from a system to it: one with packages of suites, see pytestWith.
  using = other: import ./lib.nix { inherit lib; pytestOf = other; };

  # pytest with this plugin and packages of suites: { pkgs; suites = python: [ ... ]; }.
  pytestWith = import ./package.nix;

  # A line of a NixOS test's testScript that judges a node of it. Arguments: see judge.nix.
  judge =
    arguments:
    let
      pkgs = arguments.pkgs or arguments.node.virtualisation.host.pkgs;
    in
    lineOf ({ pytest-nixos = pytestOf pkgs.stdenv.hostPlatform.system; } // arguments);

  # checkHost, built whatever the verdict; reports and exit status are its output.
  checkHostReport = arguments: checkHost (arguments // { enforce = false; });

  # checks.<system>.<host> for the hosts of a flake, by the system that each is for. Arguments: checkHost's, and `hosts`, the names
  # (all unless given).
  checkFlake =
    flake: arguments:
    let
      hosts =
        flake.nixosConfigurations
          or (throw "pytest-nixos: checkFlake: the flake has no nixosConfigurations");
      hostOf =
        name:
        hosts.${name}
          or (throw "pytest-nixos: checkFlake: no host ${name}; known: ${toString (builtins.attrNames hosts)}");
      systemOf = name: (hostOf name).pkgs.stdenv.hostPlatform.system;
      names = arguments.hosts or (builtins.attrNames hosts);
      checked = name: {
        inherit name;
        value = checkHost (
          {
            inherit name flake;
            host = hostOf name;
          }
          // removeAttrs arguments [ "hosts" ]
        );
      };
    in
    lib.genAttrs (lib.unique (map systemOf names)) (
      system: lib.listToAttrs (map checked (lib.filter (name: systemOf name == system) names))
    );
}
