{
  description = "House rules for NixOS hosts: suites, controls and a profile for pytest-nixos";

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
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAll = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      # nix run github:acme/nixos-rules -- --nixos-flake .#web --nixos-profile acme
      packages = forAll (pkgs: {
        default = pytest-nixos.lib.pytestWith {
          inherit pkgs;
          suites = python: [ (python.callPackage ./package.nix { }) ];
        };
      });

      apps = forAll (pkgs: {
        default = {
          type = "app";
          program = "${self.packages.${pkgs.stdenv.hostPlatform.system}.default}/bin/pytest";
        };
      });

      # checkHost, checkFlake and judge of pytest-nixos, with these suites. In a flake with hosts:
      # checks = acme.lib.checkFlake self { profiles = [ "acme" ]; };
      lib = pytest-nixos.lib.using (system: self.packages.${system}.default);
    };
}
