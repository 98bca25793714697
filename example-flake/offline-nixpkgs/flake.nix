{
  description = "An offline stand-in for nixpkgs: boots the example hosts from Debian packages where no binary cache can be reached";

  # The Debian tree that `prepare` puts into the store. It has no usable default: run `prepare` and pass the overrides that it prints.
  inputs.debian = {
    url = "path:/nix/store/run-example-flake-offline-nixpkgs-prepare";
    flake = false;
  };

  outputs = { self, debian }:
    let
      system = "x86_64-linux";
      nixosSystem = arguments: import ./nixos/lib/eval-config.nix ({ inherit lib; nixpkgs = self; } // arguments // { inherit pkgsFor; });
      lib = import ./lib // { inherit nixosSystem; };
      pkgsFor = _: import ./pkgs { inherit lib system; debian = debian.outPath; };
    in
    {
      inherit lib;
      legacyPackages.${system} = pkgsFor system;
      nixosModules.notDetected = { };
    };
}
