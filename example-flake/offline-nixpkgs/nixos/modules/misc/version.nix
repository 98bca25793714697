# What the system says about itself. It says that it is a stand-in.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.system.nixos;
  osRelease = {
    NAME = cfg.distroName;
    ID = cfg.distroId;
    VERSION = "${cfg.release} (${cfg.codeName})";
    VERSION_CODENAME = lib.toLower cfg.codeName;
    VERSION_ID = cfg.release;
    BUILD_ID = cfg.version;
    PRETTY_NAME = "${cfg.distroName} ${cfg.release} (${cfg.codeName})";
    VARIANT = "offline stand-in made of Debian packages";
    VARIANT_ID = "offline-stand-in";
    LOGO = "nix-snowflake";
    HOME_URL = "https://nixos.org/";
    ANSI_COLOR = "0;38;2;126;186;228";
  };
  asText = values: lib.concatStrings (lib.mapAttrsToList (name: value: "${name}=\"${value}\"\n") values);
in
{
  options.boot.initrd.osRelease = mkOption {
    type = types.path;
    internal = true;
    readOnly = true;
    default = pkgs.writeText "initrd-release" (asText (removeAttrs osRelease [ "BUILD_ID" ] // { PRETTY_NAME = "${osRelease.PRETTY_NAME} (Initrd)"; }));
  };
  options.system = {
    stateVersion = mkOption { type = types.str; default = cfg.release; };
    configurationRevision = mkOption { type = types.nullOr types.str; default = null; };
    nixos = {
      version = mkOption { type = types.str; internal = true; };
      release = mkOption { type = types.str; readOnly = true; default = lib.release; };
      versionSuffix = mkOption { type = types.str; internal = true; default = lib.versionSuffix; };
      revision = mkOption { type = types.nullOr types.str; internal = true; default = null; };
      codeName = mkOption { type = types.str; readOnly = true; default = "Offline-Stand-In"; };
      distroId = mkOption { type = types.str; internal = true; default = "nixos"; };
      distroName = mkOption { type = types.str; internal = true; default = "NixOS"; };
      variant_id = mkOption { type = types.nullOr types.str; default = null; };
      variantName = mkOption { type = types.nullOr types.str; default = null; };
      label = mkOption { type = types.strMatching "[a-zA-Z0-9:_\\.-]*"; };
      tags = mkOption { type = types.listOf types.str; default = [ ]; };
      extraOSReleaseArgs = mkOption { type = types.attrsOf types.str; default = { }; };
    };
  };

  config = {
    system.nixos.version = lib.mkDefault (cfg.release + cfg.versionSuffix);
    system.nixos.label = lib.mkDefault (lib.concatStringsSep "-" ((lib.sort (a: b: a < b) cfg.tags) ++ [ cfg.version ]));
    environment.etc.os-release.text = asText (osRelease // cfg.extraOSReleaseArgs);
    environment.etc.lsb-release.text = ''
      DISTRIB_CODENAME=${lib.toLower cfg.codeName}
      DISTRIB_DESCRIPTION="${osRelease.PRETTY_NAME}"
      DISTRIB_ID=nixos
      DISTRIB_RELEASE="${cfg.release}"
      LSB_VERSION="${osRelease.VERSION}"
    '';
    environment.systemPackages = [
      (pkgs.writeShellScriptBin "nixos-version" ''
        case "''${1:-}" in
          --json) echo '${builtins.toJSON ({ nixosVersion = cfg.version; } // lib.optionalAttrs (config.system.configurationRevision != null) { inherit (config.system) configurationRevision; })}' ;;
          --hash|--revision) echo "the offline stand-in has no Nixpkgs revision" >&2; exit 1 ;;
          --configuration-revision) echo ${lib.escapeShellArg (toString config.system.configurationRevision)} ;;
          *) echo "${cfg.version} (${cfg.codeName})" ;;
        esac
      '')
    ];
  };
}
