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
    # What systemd sets on every system unless told otherwise.
    environment.etc."sysctl.d/50-default.conf".text = ''
      kernel.sysrq = 16
      kernel.core_uses_pid = 1
      net.ipv4.conf.default.rp_filter = 2
      net.ipv4.conf.*.rp_filter = 2
      -net.ipv4.conf.all.rp_filter
      net.ipv4.conf.default.accept_source_route = 0
      net.ipv4.conf.*.accept_source_route = 0
      -net.ipv4.conf.all.accept_source_route
      net.ipv4.conf.default.promote_secondaries = 1
      net.ipv4.conf.*.promote_secondaries = 1
      -net.ipv4.conf.all.promote_secondaries
      -net.ipv4.ping_group_range = 0 2147483647
      -net.core.default_qdisc = fq_codel
      fs.protected_hardlinks = 1
      fs.protected_symlinks = 1
      fs.protected_regular = 1
      fs.protected_fifos = 1
      -fs.suid_dumpable = 2
    '';
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
