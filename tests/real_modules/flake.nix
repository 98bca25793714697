{
  description = "nixpkgs' own modules and functions with programs of Debian in place of built packages";

  # `prepare` puts both into the store and prints the overrides that name them.
  inputs.tree = {
    url = "path:/nix/store/run-tests-real_modules-prepare";
    flake = false;
  };
  inputs.debian = {
    url = "path:/nix/store/run-tests-real_modules-prepare";
    flake = false;
  };
  # example-flake/offline-nixpkgs, of which the kernel is made as here.
  inputs.stand-in = {
    url = "path:/nix/store/run-tests-real_modules-prepare";
    flake = false;
  };

  outputs = { self, tree, debian, stand-in }:
    let
      system = "x86_64-linux";
      lib = import (tree + "/lib");
      programs = import ./debian.nix { inherit system; unpacked = debian.outPath; };
      pkgs = import tree {
        inherit system;
        config = { };
        overlays = [ (import ./overlay.nix { inherit programs; unpacked = debian.outPath; stand-in = stand-in.outPath; }) ];
        stdenvStages = import ./stdenv.nix { inherit tree programs; };
      };
    in
    {
      lib = lib // {
        nixosSystem = arguments: import (tree + "/nixos/lib/eval-config.nix") ({
          inherit lib;
          system = null;
          modules = arguments.modules ++ [ ./guest.nix { nixpkgs = { inherit pkgs; flake.source = tree.outPath; }; } ];
        } // removeAttrs arguments [ "modules" "system" ]);
      };
      legacyPackages.${system} = pkgs;
    };
}
