{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  value = lib.mkOptionType {
    name = "sysctl option value";
    check = v: lib.isBool v || lib.isString v || lib.isInt v || v == null;
    merge = loc: definitions: (lib.last (lib.filterOverrides definitions)).value;
  };
  # The highest of several numbers, for settings that several modules raise.
  highest = lib.types.nullOr lib.types.ints.unsigned // { merge = loc: definitions: lib.foldl' (a: d: if d.value == null then null else if a == null then d.value else lib.max a d.value) null definitions; };
in
{
  options.boot.kernel.sysctl = mkOption {
    default = { };
    type = types.submodule {
      freeformType = types.attrsOf value;
      options = {
        "net.core.rmem_max" = mkOption { type = highest; default = null; };
        "net.core.wmem_max" = mkOption { type = highest; default = null; };
      };
    };
  };
  config = {
    environment.etc."sysctl.d/60-nixos.conf".text = lib.concatStrings (lib.mapAttrsToList
      (name: value: lib.optionalString (value != null) "${name}=${if value == false then "0" else toString value}\n")
      config.boot.kernel.sysctl);
    systemd.services.systemd-sysctl = {
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ config.environment.etc."sysctl.d/60-nixos.conf".source ];
    };
    boot.kernel.sysctl."kernel.printk" = lib.mkDefault config.boot.consoleLogLevel;
    boot.kernel.sysctl."kernel.kptr_restrict" = lib.mkDefault 1;
    boot.kernel.sysctl."fs.inotify.max_user_instances" = lib.mkDefault 524288;
    boot.kernel.sysctl."fs.inotify.max_user_watches" = lib.mkDefault 524288;
    boot.kernel.sysctl."vm.max_map_count" = lib.mkDefault 1048576;
  };
}
