{
  description = "Prove that a NixOS host is what its flake says: build it, boot it, judge it with pytest";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      # Guests run on Linux; on other systems Nix's linux-builder or a remote builder runs the checks.
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAll = make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      check = import ./nix/lib.nix {
        inherit lib;
        pytestOf = system: self.packages.${system}.pytest-nixos;
      };
    in
    {
      overlays.default = final: prev: {
        pythonPackagesExtensions = (prev.pythonPackagesExtensions or [ ]) ++ [ (import ./nix/python.nix) ];
        pytest-nixos = import ./nix/package.nix { pkgs = final; };
      };

      packages = forAll (pkgs: rec {
        pytest-nixos = import ./nix/package.nix { inherit pkgs; };
        default = pytest-nixos;
      });

      # `nix run .#pytest-nixos -- --nixos-flake .#host`; the command line beside pytest is `nix run .#cli -- doctor`.
      apps = forAll (
        pkgs:
        let
          package = self.packages.${pkgs.stdenv.hostPlatform.system}.pytest-nixos;
          app = program: {
            type = "app";
            program = "${package}/bin/${program}";
            meta.description = "${program} with pytest-nixos";
          };
        in
        {
          default = app "pytest";
          pytest-nixos = app "pytest";
          cli = app "pytest-nixos";
        }
      );

      devShells = forAll (pkgs: {
        default = pkgs.mkShell { packages = [ self.packages.${pkgs.stdenv.hostPlatform.system}.pytest-nixos ]; };
      });

      lib = check;

      nixosModules.default = import ./nix/module.nix;

      templates.default = {
        path = ./nix/template;
        description = "A flake whose hosts are judged by `nix flake check`";
      };

      templates.suites = {
        path = ./nix/suites;
        description = "A package of suites, controls and a profile for several flakes";
      };

      checks = forAll (pkgs: {
        # Builds the plugin, and has it tell its controls.
        controls = pkgs.runCommand "pytest-nixos-controls" { } ''
          ${self.packages.${pkgs.stdenv.hostPlatform.system}.pytest-nixos}/bin/pytest-nixos controls > $out
          grep -q FW-003 $out
        '';
      });
    };
}
