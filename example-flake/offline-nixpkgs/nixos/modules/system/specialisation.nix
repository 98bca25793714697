# Variants of a configuration that are built with it.
{ config, lib, pkgs, extendModules, noUserModules ? null, ... }:
let
  inherit (lib) mkOption types;
  children = lib.mapAttrs (name: child: child.configuration.system.build.toplevel) config.specialisation;
in
{
  options.specialisation = mkOption {
    default = { };
    description = "Additional configurations to build.";
    type = types.attrsOf (types.submodule (local@{ ... }:
      let extended = extendModules { modules = [ ./no-clone.nix ]; };
      in
      {
        options.inheritParentConfig = mkOption { type = types.bool; default = true; };
        options.configuration = mkOption {
          default = { };
          inherit (extended) type;
          visible = "shallow";
        };
      }));
  };
  options.isSpecialisation = mkOption { type = types.bool; internal = true; default = false; };

  config = {
    system.systemBuilderCommands = lib.mkAfter ''
      mkdir $out/specialisation
      ${lib.concatMapStrings (name: "ln -s ${children.${name}} $out/specialisation/${lib.escapeShellArg name}\n") (lib.attrNames children)}
    '';
  };
}
