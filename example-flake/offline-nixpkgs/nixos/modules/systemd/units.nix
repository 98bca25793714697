# `systemd.services` and its kin, and the folder of unit files made of them.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.systemd;
  unitOptions = import ./unit-options.nix { inherit lib pkgs config; };
  render = import ./render.nix { inherit lib; globalEnvironment = lib.filterAttrs (_: v: v != null) cfg.globalEnvironment; };

  kindOf = module: description: mkOption { default = { }; inherit description; type = types.attrsOf (types.submodule module); };

  mountName = unit: "${utils.escapeSystemdPath unit.where}.mount";

  inherit (import ./unit-folder.nix { inherit lib pkgs unitOptions; }) fileOf named plain unitFolder unitsOption;

  folder = unitFolder {
    name = "system-units";
    inherit (cfg) package packages units upstreamUnits upstreamWants;
    links = ''
      ln -sfn ${cfg.defaultUnit} $out/default.target
      link ../getty.target multi-user.target.wants/getty.target
      link ../remote-fs.target multi-user.target.wants/remote-fs.target
      for target in ctrl-alt-del; do ln -sfn reboot.target $out/$target.target; done
    '';
  };

  userUnits = named render.service cfg.user.services // named render.timer cfg.user.timers;
  userFolder = pkgs.runCommand "user-units" { } (''
    mkdir -p $out
    for unit in ${cfg.package}/example/systemd/user/*; do
      [ -d "$unit" ] || ln -s "$unit" $out/
    done
  '' + lib.concatStrings (lib.mapAttrsToList
    (name: unit: "ln -sfn ${fileOf name unit}/${lib.escapeShellArg name} $out/${lib.escapeShellArg name}\n"
      + lib.concatMapStrings (target: "mkdir -p $out/${lib.escapeShellArg target}.wants; ln -sfn ../${lib.escapeShellArg name} $out/${lib.escapeShellArg target}.wants/\n") (lib.optionals unit.enable unit.wantedBy))
    userUnits));

  timersFromStartAt = lib.mapAttrs (_: service: { wantedBy = [ "timers.target" ]; timerConfig.OnCalendar = service.startAt; })
    (lib.filterAttrs (_: service: service.enable && service.startAt != [ ]) cfg.services);
in
{
  options.systemd = {
    package = mkOption { type = types.package; default = pkgs.systemd; };
    units = unitsOption;
    packages = mkOption { type = types.listOf types.package; default = [ ]; };
    targets = kindOf unitOptions.target "Target units.";
    services = kindOf unitOptions.service "Service units.";
    sockets = kindOf unitOptions.socket "Socket units.";
    timers = kindOf unitOptions.timer "Timer units.";
    paths = kindOf unitOptions.path "Path units.";
    user.services = kindOf unitOptions.service "Service units of every user's manager.";
    user.timers = kindOf unitOptions.timer "Timer units of every user's manager.";
    slices = kindOf unitOptions.slice "Slice units.";
    mounts = mkOption { type = types.listOf (types.submodule [ unitOptions.mount { _module.args.name = lib.mkDefault "mount"; } ]); default = [ ]; };
    automounts = mkOption { type = types.listOf types.attrs; default = [ ]; };
    defaultUnit = mkOption { type = types.str; default = "multi-user.target"; };
    ctrlAltDelUnit = mkOption { type = types.str; default = "reboot.target"; };
    globalEnvironment = mkOption { type = types.attrsOf (types.nullOr (types.oneOf [ types.str types.path types.package ])); default = { }; };
    upstreamUnits = mkOption { type = types.listOf types.str; internal = true; default = [ ]; };
    upstreamWants = mkOption { type = types.listOf types.str; internal = true; default = [ ]; };
    suppressedSystemUnits = mkOption { type = types.listOf types.str; default = [ ]; };
    additionalUpstreamSystemUnits = mkOption { type = types.listOf types.str; default = [ ]; };
    enableStrictShellChecks = mkOption { type = types.bool; default = false; };
  };

  config = {
    systemd.timers = timersFromStartAt;
    systemd.units = lib.mkMerge [
      (named render.service cfg.services)
      (named render.socket cfg.sockets)
      (named render.timer cfg.timers)
      (named render.path cfg.paths)
      (named render.slice cfg.slices)
      (named render.target cfg.targets)
      (lib.listToAttrs (map (unit: lib.nameValuePair (mountName unit) (plain render.mount unit)) cfg.mounts))
    ];
    environment.etc."systemd/system".source = folder;
    environment.etc."systemd/user".source = userFolder;
    system.build.units = cfg.units;
  };
}
