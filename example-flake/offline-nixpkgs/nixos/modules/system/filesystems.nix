# File systems and swap devices.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkOption types;

  fileSystem = { name, config, ... }: {
    options = {
      enable = mkOption { type = types.bool; default = true; };
      mountPoint = mkOption { type = types.nonEmptyStr; };
      device = mkOption { type = types.nullOr types.nonEmptyStr; default = null; };
      stratis.poolUuid = mkOption { type = types.nullOr types.str; default = null; };
      fsType = mkOption { type = types.nonEmptyStr; default = "auto"; };
      options = mkOption { type = types.listOf types.str; default = [ "defaults" ]; };
      depends = mkOption { type = types.listOf types.str; default = [ ]; };
      label = mkOption { type = types.nullOr types.nonEmptyStr; default = null; };
      autoFormat = mkOption { type = types.bool; default = false; };
      autoResize = mkOption { type = types.bool; default = false; };
      noCheck = mkOption { type = types.bool; default = false; };
      neededForBoot = mkOption { type = types.bool; default = false; };
      overlay = lib.genAttrs [ "lowerdir" ] (_: mkOption { type = types.nullOr (types.listOf types.str); default = null; })
        // lib.genAttrs [ "upperdir" "workdir" ] (_: mkOption { type = types.nullOr types.str; default = null; });
    };
    config = {
      mountPoint = lib.mkDefault name;
      device = lib.mkMerge [
        (lib.mkIf (lib.elem config.fsType [ "tmpfs" "overlay" "proc" "sysfs" ]) (lib.mkDefault config.fsType))
        (lib.mkIf (config.label != null) (lib.mkDefault "/dev/disk/by-label/${config.label}"))
      ];
      depends = lib.mkIf (config.overlay.lowerdir != null) (config.overlay.lowerdir ++ [ config.overlay.upperdir config.overlay.workdir ]);
      options = lib.mkMerge [
        (lib.mkIf (config.overlay.lowerdir != null) [
          "lowerdir=${lib.concatStringsSep ":" config.overlay.lowerdir}"
          "upperdir=${config.overlay.upperdir}"
          "workdir=${config.overlay.workdir}"
        ])
        (lib.mkIf (utils.fsNeededForBoot config) [ "x-initrd.mount" ])
      ];
    };
  };

  swap = { config, ... }: {
    options = {
      device = mkOption { type = types.nonEmptyStr; };
      label = mkOption { type = types.str; default = ""; };
      size = mkOption { type = types.nullOr types.int; default = null; };
      priority = mkOption { type = types.nullOr types.int; default = null; };
      options = mkOption { type = types.listOf types.str; default = [ "defaults" ]; };
      discardPolicy = mkOption { type = types.nullOr (types.enum [ "once" "pages" "both" ]); default = null; };
      randomEncryption.enable = mkOption { type = types.bool; default = false; };
      deviceName = mkOption { type = types.str; internal = true; };
      realDevice = mkOption { type = types.path; internal = true; };
    };
    config = {
      device = lib.mkIf (config.label != "") "/dev/disk/by-label/${config.label}";
      deviceName = lib.replaceStrings [ "\\" ] [ "" ] (utils.escapeSystemdPath config.device);
      realDevice = config.device;
    };
  };

  mounted = lib.filter (fs: fs.enable) (lib.attrValues config.fileSystems);
  # A file system comes after those that it lies on: its mount point's, an overlay's folders', a bind mount's source's.
  within = folder: path: folder == "/" || path == folder || lib.hasPrefix "${folder}/" path;
  reliesOn = fs: [ fs.mountPoint ] ++ fs.depends ++ lib.optional (fs.device != null && lib.hasPrefix "/" fs.device) fs.device;
  sorted = (lib.toposort (a: b: a.mountPoint != b.mountPoint && lib.any (within a.mountPoint) (reliesOn b)) mounted).result
    or (throw "The ‘fileSystems’ option can't be topologically sorted.");
  field = lib.replaceStrings [ " " "\t" ] [ "\\040" "\\011" ];
  line = fs:
    let pass = if fs.noCheck || lib.elem fs.fsType [ "9p" "tmpfs" "overlay" "auto" "virtiofs" "none" "erofs" "bindfs" ] then "0" else if fs.mountPoint == "/" then "1" else "2";
    in "${field (if fs.device != null then fs.device else throw "No device specified for mount point '${fs.mountPoint}'.")} ${field fs.mountPoint} ${fs.fsType} ${lib.concatStringsSep "," (map field (fs.options ++ lib.optional fs.autoResize "x-systemd.growfs"))} 0 ${pass}\n";
in
{
  options = {
    fileSystems = mkOption { type = types.attrsOf (types.submodule fileSystem); default = { }; };
    swapDevices = mkOption { type = types.listOf (types.submodule swap); default = [ ]; };
    boot.supportedFilesystems = mkOption {
      type = types.coercedTo (types.listOf types.str) (names: lib.genAttrs names (_: true)) (types.attrsOf types.bool);
      default = { };
    };
    boot.specialFileSystems = mkOption { type = types.attrsOf (types.submodule fileSystem); default = { }; internal = true; };
    boot.tmp = {
      cleanOnBoot = mkOption { type = types.bool; default = false; };
      useTmpfs = mkOption { type = types.bool; default = false; };
      tmpfsSize = mkOption { type = types.oneOf [ types.str types.ints.positive ]; default = "50%"; };
      useZram = mkOption { type = types.bool; default = false; };
    };
    boot.devSize = mkOption { type = types.str; default = "5%"; };
    boot.devShmSize = mkOption { type = types.str; default = "50%"; };
    boot.runSize = mkOption { type = types.str; default = "25%"; };
    boot.growPartition = mkOption { type = types.bool; default = false; };
  };

  config = {
    assertions = [{
      assertion = config.fileSystems ? "/" || config.boot.isContainer;
      message = "The ‘fileSystems’ option does not specify your root file system.";
    }];
    system.build.fileSystems = sorted;
    system.build.fstabLine = line;
    environment.etc.fstab.text = ''
      # This is a generated file.  Do not edit!
      #
      # To make changes, edit the fileSystems and swapDevices NixOS options
      # in your /etc/nixos/configuration.nix file.
      #
      # <file system> <mount point>   <type>  <options>       <dump>  <pass>

      # Filesystems.
      ${lib.concatMapStrings line sorted}

      # Swap devices.
      ${lib.concatMapStrings (s: "${s.realDevice} none swap ${lib.concatStringsSep "," (s.options ++ lib.optional (s.priority != null) "pri=${toString s.priority}")}\n") config.swapDevices}
    '';
    systemd.mounts = lib.optional config.boot.tmp.useTmpfs {
      what = "tmpfs";
      where = "/tmp";
      type = "tmpfs";
      wantedBy = [ "local-fs.target" ];
      mountConfig.Options = lib.concatStringsSep "," [ "mode=1777" "strictatime" "rw" "nosuid" "nodev" "size=${toString config.boot.tmp.tmpfsSize}" ];
    };
    systemd.tmpfiles.rules = [ "d /run/keys 0750 root keys" "z /run/keys 0750 root keys" ]
      ++ lib.optional (!config.boot.tmp.useTmpfs) "q /tmp 1777 root root 10d" ++ lib.optional config.boot.tmp.cleanOnBoot "D! /tmp 1777 root root";
  };
}
