{ lib, config, options, ... }:
let
  inherit (lib) mkOption types;
  platform = mkOption { type = types.either types.str types.attrs; apply = p: if lib.isString p then lib.systems.elaborate p else p; };
in
{
  options.nixpkgs = {
    system = mkOption { type = types.str; description = "The system to build for."; };
    hostPlatform = platform // { description = "The platform that runs the configuration."; };
    buildPlatform = platform // { default = config.nixpkgs.hostPlatform; };
    localSystem = mkOption { type = types.attrs; default = { }; };
    crossSystem = mkOption { type = types.nullOr types.attrs; default = null; };
    config = mkOption { type = types.attrs; default = { }; };
    overlays = mkOption { type = types.listOf types.unspecified; default = [ ]; };
    pkgs = mkOption { type = types.unspecified; };
    flake = {
      source = mkOption { type = types.nullOr (types.either types.str types.path); default = null; };
      setNixPath = mkOption { type = types.bool; default = true; };
      setFlakeRegistry = mkOption { type = types.bool; default = true; };
    };
  };
  config.nixpkgs.system = lib.mkDefault (if options.nixpkgs.hostPlatform.isDefined then config.nixpkgs.hostPlatform.system else "x86_64-linux");
  config._module.args = lib.mkIf options.nixpkgs.pkgs.isDefined { pkgs = lib.mkForce config.nixpkgs.pkgs; };
}
