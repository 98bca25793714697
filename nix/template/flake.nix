{
  description = "Hosts that `nix flake check` boots and judges";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    pytest-nixos.url = "github:pytest-nixos/pytest-nixos";
    pytest-nixos.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    {
      self,
      nixpkgs,
      pytest-nixos,
    }:
    {
      nixosConfigurations.web = nixpkgs.lib.nixosSystem {
        modules = [
          pytest-nixos.nixosModules.default
          ./web.nix
        ];
      };

      # One derivation a host: nix build .#checks.x86_64-linux.web
      checks = pytest-nixos.lib.checkFlake self { };
    };
}
