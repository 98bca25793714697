{
  description = "Hosts with secrets, on models of sops-nix and agenix: what the tests of test secrets boot";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = { self, nixpkgs }:
    let
      host = module: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ ./modules/base.nix ./modules/sops-nix.nix ./modules/agenix.nix module ];
      };
    in
    {
      nixosConfigurations = builtins.mapAttrs (_: host) (import ./hosts.nix);
    };
}
