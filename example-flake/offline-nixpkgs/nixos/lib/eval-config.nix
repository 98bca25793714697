# `lib.nixosSystem`: evaluate a host's modules together with the stand-in's. Called by itself, as nixpkgs' own may be, it is given its packages
# (`pkgs` or `nixpkgs.pkgs`): only the flake knows the Debian tree.
{ lib ? import ../../lib // { nixosSystem = arguments: import ./eval-config.nix ({ inherit lib; } // arguments); }
, nixpkgs ? ../../.
, pkgsFor ? _: throw "offline-nixpkgs: eval-config.nix by itself makes no packages: set nixpkgs.pkgs"
, system ? null
, modules ? [ ]
, specialArgs ? { }
, extraModules ? [ ]
, baseModules ? import ../module-list.nix
, prefix ? [ ]
, modulesLocation ? null
, pkgs ? null
, ...
}:
let
  hostModule = { config, ... }: {
    _file = "offline-nixpkgs/nixos/lib/eval-config.nix";
    key = "offline-nixpkgs/nixos/lib/eval-config.nix";
    config = {
      nixpkgs.hostPlatform = lib.mkIf (system != null) (lib.mkDefault system);
      nixpkgs.flake.source = toString nixpkgs;
      _module.args = {
        inherit baseModules extraModules modules;
        pkgs = lib.mkDefault (if pkgs != null then pkgs else pkgsFor config.nixpkgs.system // { config = config.nixpkgs.config; });
        utils = import ../utils.nix { inherit lib config; };
      };
    };
  };

  located = if modulesLocation == null then modules else map (lib.setDefaultModuleLocation modulesLocation) modules;

  evaluate = lib.evalModules {
    inherit prefix;
    class = "nixos";
    modules = baseModules ++ extraModules ++ [ hostModule ] ++ located;
    specialArgs = { modulesPath = toString ../modules; } // specialArgs;
  };

  # What a host in `nixosConfigurations` offers beside the module system's own result.
  withExtraAttributes = configuration: configuration // {
    inherit (configuration._module.args) pkgs;
    inherit lib extraModules;
    extraArgs = { };
    extendModules = arguments: withExtraAttributes (configuration.extendModules arguments);
  };
in
withExtraAttributes evaluate
