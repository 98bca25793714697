# Nix in the guest.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.nix;
  flag = default: mkOption { type = types.bool; inherit default; };
  show = v: if lib.isBool v then lib.boolToString v else if lib.isList v then lib.concatMapStringsSep " " toString v else toString v;
  job = { automatic = flag false; persistent = flag true; };
in
{
  options.nix = {
    enable = flag true;
    package = mkOption { type = types.package; default = pkgs.nix; };
    settings = mkOption { type = types.submodule { freeformType = types.attrsOf (types.oneOf [ types.bool types.int types.float types.str types.path types.package (types.listOf (types.either types.str types.path)) ]); }; default = { }; };
    extraOptions = mkOption { type = types.lines; default = ""; };
    checkConfig = flag true;
    channel.enable = flag true;
    nixPath = mkOption { type = types.listOf types.str; default = [ ]; };
    registry = mkOption { type = types.attrsOf types.attrs; default = { }; };
    nrBuildUsers = mkOption { type = types.int; default = 32; };
    daemonCPUSchedPolicy = mkOption { type = types.enum [ "other" "batch" "idle" ]; default = "other"; };
    daemonIOSchedClass = mkOption { type = types.enum [ "best-effort" "idle" ]; default = "best-effort"; };
    daemonIOSchedPriority = mkOption { type = types.int; default = 4; };
    buildMachines = mkOption { type = types.listOf types.attrs; default = [ ]; };
    distributedBuilds = flag false;
    sshServe.enable = flag false;
    gc = job // { dates = mkOption { type = types.either types.singleLineStr (types.listOf types.str); default = "03:15"; }; options = mkOption { type = types.singleLineStr; default = ""; }; randomizedDelaySec = mkOption { type = types.singleLineStr; default = "0"; }; };
    optimise = job // { dates = mkOption { type = types.listOf types.str; default = [ "03:45" ]; }; };
  };

  config = lib.mkIf cfg.enable {
    nix.settings = {
      experimental-features = lib.mkDefault [ ];
      trusted-users = [ "root" ];
      allowed-users = lib.mkDefault [ "*" ];
      max-jobs = lib.mkDefault "auto";
      cores = lib.mkDefault 0;
      sandbox = lib.mkDefault true;
      substituters = [ ];
      trusted-public-keys = [ ];
      require-sigs = lib.mkDefault true;
      auto-optimise-store = lib.mkDefault false;
      build-users-group = "nixbld";
    };
    users.groups.nixbld = { gid = config.ids.gids.nixbld; members = map (n: "nixbld${toString n}") (lib.range 1 cfg.nrBuildUsers); };
    users.users = lib.listToAttrs (map (n: lib.nameValuePair "nixbld${toString n}" { description = "Nix build user ${toString n}"; uid = config.ids.uids.nixbld + n; isSystemUser = true; group = "nixbld"; }) (lib.range 1 cfg.nrBuildUsers));
    environment.systemPackages = [ cfg.package ];
    environment.etc."nix/nix.conf".text = "# WARNING: this file is generated from the nix.* options in\n# your NixOS configuration, typically\n# /etc/nixos/configuration.nix.  Do not edit it!\n"
      + lib.concatStrings (lib.mapAttrsToList (n: v: "${n} = ${show v}\n") cfg.settings) + cfg.extraOptions;
    environment.etc."nix/registry.json".text = builtins.toJSON { version = 2; flakes = [ ]; };
    systemd.sockets.nix-daemon = { description = "Nix Daemon Socket"; wantedBy = [ "sockets.target" ]; before = [ "multi-user.target" ]; unitConfig.RequiresMountsFor = [ "/nix/store" ]; unitConfig.ConditionPathIsReadWrite = "/nix/var/nix/daemon-socket"; socketConfig.ListenStream = "/nix/var/nix/daemon-socket/socket"; };
    systemd.services.nix-daemon = {
      description = "Nix Daemon";
      path = [ cfg.package pkgs.util-linux pkgs.openssh ];
      unitConfig = { RequiresMountsFor = [ "/nix/store" "/nix/var" ]; ConditionPathIsReadWrite = "/nix/var/nix/daemon-socket"; };
      restartTriggers = [ config.environment.etc."nix/nix.conf".source ];
      restartIfChanged = false;
      serviceConfig = { ExecStart = "@${cfg.package}/bin/nix-daemon nix-daemon --daemon"; KillMode = "process"; LimitNOFILE = 1048576; TasksMax = 1048576; };
    };
    systemd.tmpfiles.rules = [ "d /nix/var/nix/daemon-socket 0755 root root - -" "d /nix/var/nix/profiles/per-user 0755 root root - -" "d /nix/var/nix/gcroots/per-user 0755 root root - -" ];
    systemd.services.nix-gc = { description = "Nix Garbage Collector"; script = "exec ${cfg.package}/bin/nix-collect-garbage ${cfg.gc.options}"; serviceConfig.Type = "oneshot"; startAt = lib.optionals cfg.gc.automatic (lib.toList cfg.gc.dates); };
    systemd.services.nix-optimise = { description = "Nix Store Optimiser"; unitConfig.ConditionPathIsReadWrite = "/nix/store"; serviceConfig.ExecStart = "${cfg.package}/bin/nix-store --optimise"; startAt = lib.optionals cfg.optimise.automatic cfg.optimise.dates; };
    systemd.timers.nix-gc = lib.mkIf cfg.gc.automatic { timerConfig = { RandomizedDelaySec = cfg.gc.randomizedDelaySec; Persistent = cfg.gc.persistent; }; };
    system.activationScripts.nix = { deps = [ "etc" "users" ]; text = "install -m 0755 -d /nix/var/nix/{gcroots,profiles,temproots,userpool,db,daemon-socket} /nix/var/nix/{gcroots,profiles}/per-user\n"; };
  };
}
