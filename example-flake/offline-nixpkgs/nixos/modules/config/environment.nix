# The system path, variables and shells.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.environment;
  variable = types.coercedTo (types.oneOf [ types.int types.float types.path types.package ]) toString types.str;
  variables = mkOption {
    default = { };
    type = types.attrsOf (types.nullOr (types.either variable (types.listOf variable)));
    apply = lib.mapAttrs (_: v: if lib.isList v then lib.concatMapStringsSep ":" toString v else v);
  };
  text = mkOption { type = types.lines; default = ""; };
  exports = set: lib.concatStrings (lib.mapAttrsToList (n: v: lib.optionalString (v != null) "export ${n}=\"${toString v}\"\n") set);
  required = with pkgs; [
    bash bzip2 coreutils curl diffutils findutils gawk getent gnugrep gnused gnutar gzip hostname-debian xz less libcap netcat openssh patch procps
    shadow util-linux which zstd iproute2 iputils kmod e2fsprogs
  ];
in
{
  options.environment = {
    systemPackages = mkOption { type = types.listOf types.package; default = [ ]; };
    defaultPackages = mkOption { type = types.listOf types.package; default = [ ]; };
    corePackages = mkOption { type = types.listOf types.package; default = required; };
    pathsToLink = mkOption { type = types.listOf types.str; default = [ ]; };
    extraOutputsToInstall = mkOption { type = types.listOf types.str; default = [ ]; };
    extraSetup = text;
    variables = variables;
    sessionVariables = variables;
    profileRelativeEnvVars = mkOption { type = types.attrsOf (types.listOf types.str); default = { }; };
    profiles = mkOption { type = types.listOf types.str; default = [ ]; };
    shells = mkOption { type = types.listOf (types.either types.shellPackage types.path); default = [ ]; };
    shellAliases = mkOption { type = types.attrsOf (types.nullOr (types.either types.str types.path)); default = { }; };
    extraInit = text;
    shellInit = text;
    loginShellInit = text;
    interactiveShellInit = text;
    homeBinInPath = mkOption { type = types.bool; default = false; };
    localBinInPath = mkOption { type = types.bool; default = false; };
    memoryAllocator.provider = mkOption { type = types.str; default = "libc"; };
    noXlibs = mkOption { type = types.bool; default = false; };
    ldso = mkOption { type = types.nullOr types.path; default = null; };
    stub-ld.enable = mkOption { type = types.bool; default = true; };
  };
  options.system.path = mkOption { internal = true; type = types.raw; };

  config = {
    environment.systemPackages = cfg.corePackages ++ cfg.defaultPackages;
    environment.pathsToLink = [ "/bin" "/etc/xdg" "/etc/gtk-2.0" "/lib" "/sbin" "/share" ];
    environment.profiles = [ "$HOME/.nix-profile" "\${XDG_STATE_HOME}/nix/profile" "$HOME/.local/state/nix/profile" "/etc/profiles/per-user/$USER" "/nix/var/nix/profiles/default" "/run/current-system/sw" ];
    environment.shells = [ "/run/current-system/sw/bin/bash" "/run/current-system/sw/bin/sh" "${pkgs.bash}/bin/bash" "${pkgs.bash}/bin/sh" ];
    environment.variables = { EDITOR = lib.mkDefault "nano"; PAGER = lib.mkDefault "less"; NIX_SSL_CERT_FILE = lib.mkDefault "/etc/ssl/certs/ca-certificates.crt"; };
    system.path = pkgs.buildEnv { name = "system-path"; paths = cfg.systemPackages; inherit (cfg) pathsToLink; postBuild = cfg.extraSetup; };

    environment.etc = {
      set-environment.text = ''
        # DO NOT EDIT -- this file has been generated automatically.
        # Prevent this file from being sourced by child shells.
        export __NIXOS_SET_ENVIRONMENT_DONE=1
        ${exports (cfg.variables // cfg.sessionVariables)}
        export PATH="$HOME/.nix-profile/bin:/etc/profiles/per-user/$USER/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin"
        ${cfg.extraInit}
        export PATH="/run/wrappers/bin:$PATH"
      '';
      profile.text = ''
        # /etc/profile: DO NOT EDIT -- this file has been generated automatically.
        if [ -n "''${__ETC_PROFILE_SOURCED-}" ]; then return; fi
        __ETC_PROFILE_SOURCED=1
        export __ETC_PROFILE_DONE=1
        if [ -z "''${__NIXOS_SET_ENVIRONMENT_DONE-}" ]; then
          . /etc/set-environment
        fi
        ${cfg.shellInit}
        ${cfg.loginShellInit}
        if [ -n "''${BASH_VERSION:-}" ]; then . /etc/bashrc; fi
      '';
      bashrc.text = ''
        # /etc/bashrc: DO NOT EDIT -- this file has been generated automatically.
        if [ -n "''${__ETC_BASHRC_SOURCED:-}" ] || [ -n "''${NOSYSBASHRC:-}" ]; then return; fi
        __ETC_BASHRC_SOURCED=1
        if [ -z "''${__ETC_PROFILE_DONE:-}" ]; then . /etc/profile; fi
        if [ -n "''${PS1:-}" ]; then
          ${lib.concatStrings (lib.mapAttrsToList (n: v: lib.optionalString (v != null) "alias -- ${n}=${lib.escapeShellArg (toString v)}\n") cfg.shellAliases)}
          ${cfg.interactiveShellInit}
          :
        fi
      '';
      inputrc.text = "set bell-style none\n";
      shells.text = lib.concatMapStrings (s: "${if s ? shellPath then "${s}${s.shellPath}" else toString s}\n") cfg.shells + "/bin/sh\n";
      protocols.source = "${pkgs.iana-etc}/etc/protocols";
      services.source = "${pkgs.iana-etc}/etc/services";
      "ssl/certs/ca-certificates.crt".source = "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";
      "ssl/certs/ca-bundle.crt".source = "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";
      "login.defs".text = "DEFAULT_HOME yes\nSYS_UID_MIN 400\nSYS_UID_MAX 999\nUID_MIN 1000\nUID_MAX 29999\nSYS_GID_MIN 400\nSYS_GID_MAX 999\nGID_MIN 1000\nGID_MAX 29999\nTTYGROUP tty\nTTYPERM 0620\nUMASK 077\nENCRYPT_METHOD YESCRYPT\n";
    };
  };
}
