# The nodes of a NixOS test, as a flake's nixosConfigurations are. Applied to what runNixOSTest, nixosTest and makeTest return.
{ nodeAsHost }:
test:
let
  nodes = test.nodes or test.config.nodes or (throw "pytest-nixos: it is no NixOS test: it has no nodes");
in
builtins.mapAttrs (_: nodeAsHost) nodes
