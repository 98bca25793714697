# The device mapper, LVM and mdraid, btrfs and xfs, and what /etc/crypttab opens: as tasks/lvm.nix, tasks/swraid.nix,
# tasks/filesystems and systemd's own units have them.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.boot.swraid;

  devices = map (entry: toString entry.device) (lib.attrValues config.fileSystems ++ config.swapDevices);
  isLogicalVolume = device:
    builtins.match "/dev/mapper/.+-.+" device != null
    || (builtins.match "/dev/[^/]+/[^/]+" device != null && builtins.match "/dev/(disk|mapper|md|zvol)/.*" device == null);

  fsTypes = map (fs: fs.fsType) (lib.attrValues config.fileSystems);
  has = type: lib.elem type fsTypes;
in
{
  options = {
    boot.swraid = {
      enable = mkOption { type = types.bool; default = lib.versionOlder config.system.stateVersion "23.11"; };
      mdadmConf = mkOption { type = types.lines; default = ""; };
    };
    # nixpkgs has udev in every stage 1. Here it is where something needs more than the kernel's own names, since it costs a second.
    boot.initrd.hasUdev = mkOption {
      type = types.bool;
      internal = true;
      default = cfg.enable || config.boot.initrd.luks.devices != { } || lib.any isLogicalVolume devices;
    };
    boot.initrd.services.lvm.enable = mkOption { type = types.bool; default = false; };
    services.lvm = {
      enable = mkOption { type = types.bool; default = true; };
      package = mkOption { type = types.package; default = pkgs.lvm2; };
      boot.thin.enable = mkOption { type = types.bool; default = false; };
    };
    system.fsPackages = mkOption { type = types.listOf types.package; internal = true; default = [ ]; };
    services.btrfs.autoScrub = {
      enable = mkOption { type = types.bool; default = false; };
      interval = mkOption { type = types.str; default = "monthly"; };
      fileSystems = mkOption { type = types.listOf types.path; default = [ ]; };
    };
  };

  config = lib.mkIf (!config.boot.isContainer) (lib.mkMerge [
    {
      environment.systemPackages = config.system.fsPackages
        ++ lib.optional config.services.lvm.enable config.services.lvm.package
        ++ lib.optional cfg.enable pkgs.mdadm;
      environment.etc."lvm/lvm.conf".text = "config {}";
      system.fsPackages = lib.optional (has "vfat") pkgs.dosfstools ++ lib.optional (has "btrfs") pkgs.btrfs-progs ++ lib.optional (has "xfs") pkgs.xfsprogs;
      systemd.additionalUpstreamSystemUnits = [ "cryptsetup.target" "cryptsetup-pre.target" "remote-cryptsetup.target" "blk-availability.service" ];
    }
    (lib.mkIf cfg.enable { environment.etc."mdadm.conf".text = lib.mkAfter cfg.mdadmConf; })
    (lib.mkIf config.boot.initrd.hasUdev {
      boot.initrd.availableKernelModules = [ "dm_mod" "dm_crypt" ]
        ++ lib.optionals cfg.enable [ "md_mod" "raid0" "raid1" "raid10" "raid456" ]
        ++ lib.optionals config.services.lvm.boot.thin.enable [ "dm_snapshot" "dm_thin_pool" ];
      boot.initrd.systemd = {
        initrdBin = lib.optional config.services.lvm.enable pkgs.lvm2 ++ lib.optional cfg.enable pkgs.mdadm;
        udevRules = [ "55-dm" "60-persistent-storage-dm" "95-dm-notify" ] ++ lib.optionals config.services.lvm.enable [ "56-lvm" "69-lvm" ]
          ++ lib.optionals cfg.enable [ "01-md-raid-creating" "63-md-raid-arrays" "64-md-raid-assembly" ];
        # The rules call them there.
        storePaths = map (name: "${pkgs.debian}/usr/sbin/${name}") ([ "dmsetup" "lvm" ] ++ lib.optional cfg.enable "mdadm");
        contents."/etc/mdadm.conf" = lib.mkIf cfg.enable { inherit (config.environment.etc."mdadm.conf") source; };
      };
      boot.initrd.extraUtilsCommands = lib.mkIf (!config.boot.initrd.systemd.enable) ''
        copy_bin_and_libs $debian/usr/bin/udevadm
        ln -s udevadm $root/bin/systemd-udevd
        ${lib.optionalString config.services.lvm.enable ''
          copy_bin_and_libs ${pkgs.lvm2}/bin/lvm
          copy_bin_and_libs ${pkgs.lvm2}/bin/dmsetup
        ''}
        ${lib.optionalString cfg.enable ''
          copy_bin_and_libs ${pkgs.mdadm}/bin/mdadm
          cp ${config.environment.etc."mdadm.conf".source} $root/etc/mdadm.conf
        ''}
        # The programs that the rules call.
        mkdir -p $root/usr/lib/udev/rules.d
        for name in bin sbin; do ln -sfn ../bin $root/usr/$name; done
        for rules in 55-dm 56-lvm 60-persistent-storage 60-persistent-storage-dm 64-btrfs 69-lvm 95-dm-notify ${lib.optionalString cfg.enable "01-md-raid-creating 63-md-raid-arrays 64-md-raid-assembly"}; do
          cp $debian/usr/lib/udev/rules.d/$rules.rules $root/usr/lib/udev/rules.d/
        done
      '';
    })
  ]);
}
