# The nodes of a NixOS test, as a flake's nixosConfigurations are. Applied to what runNixOSTest, nixosTest and makeTest return.
#
# From 26.05 on a test may have containers, too, which the driver starts under systemd-nspawn: they are named, and no machine here.
{ nodeAsHost }:
test:
let
  nodes = test.nodes or test.config.nodes or (throw "pytest-nixos: it is no NixOS test: it has no nodes");
  containers = test.config.containers or { };
in
builtins.mapAttrs (_: _: { problem = "test-container"; }) containers // builtins.mapAttrs (_: nodeAsHost) nodes
