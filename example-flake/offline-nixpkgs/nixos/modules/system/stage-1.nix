# The scripted initial RAM disk: busybox that mounts what the system needs and starts stage 2.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.boot.initrd;
  kernel = config.boot.kernelPackages.kernel;
  needed = lib.filter utils.fsNeededForBoot config.system.build.fileSystems;

  mountLine = fs: "${lib.replaceStrings [ " " ] [ "\\040" ] fs.device} ${fs.mountPoint} ${fs.fsType} ${lib.concatStringsSep "," (lib.filter (o: !(lib.hasPrefix "x-" o)) fs.options)}\n";

  # nixpkgs brings the modules of each file system in its own file (tasks/filesystems).
  fileSystemModules = lib.concatMap (name: if name == "vfat" then [ "vfat" "nls_cp437" "nls_iso8859-1" ] else [ name ]) (lib.attrNames (lib.filterAttrs (_: on: on) cfg.supportedFilesystems));

  initrd = pkgs.runCommand "initrd-${kernel.name}"
    {
      init = lib.replaceStrings [ "@distroName@" "@linkDebianPaths@" "@postDeviceCommands@" "@postMountCommands@" "@preLVMCommands@" "@preDeviceCommands@" ]
        [ config.system.nixos.distroName "${config.system.build.linkDebianPaths}" cfg.postDeviceCommands cfg.postMountCommands cfg.preLVMCommands cfg.preDeviceCommands ]
        (builtins.readFile ../../scripts/stage-1.sh);
      mounts = lib.concatMapStrings mountLine needed;
      passAsFile = [ "init" "mounts" ];
    } ''
    root=$TMPDIR/root
    mkdir -p $root/{bin,proc,sys,dev,run,modules,mnt-root,etc}
    cp $debian/usr/bin/busybox $root/bin/busybox
    for name in sh mount umount mkdir cat echo insmod sleep findfs switch_root ls ln modprobe readlink sync reboot dmesg mknod chmod env grep rm mv cp touch stat test uname cut date printf; do
      ln -s busybox $root/bin/$name
    done
    cp "$initPath" $root/init
    chmod +x $root/init
    cp "$mountsPath" $root/etc/mounts

    # A program of a package with the libraries that it needs, as nixpkgs' extra-utils have them.
    copy_bin_and_libs() {
      local program library libraries
      program=$(readlink -f "$1")
      mkdir -p $root/lib64 $root/usr/lib/x86_64-linux-gnu
      cp "$program" "$root/bin/''${1##*/}"
      libraries=$($debian/usr/lib64/ld-linux-x86-64.so.2 --library-path $debian/usr/lib/x86_64-linux-gnu:$debian/usr/lib/x86_64-linux-gnu/systemd --list "$program" | sed -n 's,.*=> \(/[^ ]*\) .*,\1,p')
      for library in $libraries; do
        case $library in
          */ld-linux*) cp "$library" $root/lib64/ ;;
          *) cp "$library" $root/usr/lib/x86_64-linux-gnu/ ;;
        esac
      done
    }
    ${cfg.extraUtilsCommands}

    # Modules, unpacked, in an order in which each finds what it needs.
    for module in ${lib.escapeShellArgs (lib.unique (cfg.availableKernelModules ++ cfg.kernelModules ++ fileSystemModules))}; do
      tree modprobe --dirname ${kernel} --set-version ${kernel.modDirVersion} --ignore-install --show-depends "$module" 2>/dev/null || echo "# $module is built in or unknown"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | while read -r file; do
      name=''${file##*/}
      name=''${name%.xz}
      [ -e "$root/modules/$name" ] && continue
      xzcat "$file" > "$root/modules/$name"
      echo "$name" >> $root/modules/order
    done
    mkdir -p $out
    (cd $root && find . | sort | cpio -o -H newc -R 0:0 2>/dev/null) > $out/initrd
  '';
in
{
  options.boot.initrd = {
    enable = mkOption { type = types.bool; default = !config.boot.isContainer; };
    systemd.enable = mkOption { type = types.bool; default = false; };
    fileSystemModules = mkOption { type = types.listOf types.str; internal = true; readOnly = true; default = fileSystemModules; };
    systemd.emergencyAccess = mkOption { type = types.either types.bool types.str; default = false; };
    availableKernelModules = mkOption { type = types.listOf types.str; default = [ ]; };
    kernelModules = mkOption { type = types.listOf types.str; default = [ ]; };
    includeDefaultModules = mkOption { type = types.bool; default = true; };
    supportedFilesystems = mkOption { type = types.coercedTo (types.listOf types.str) (names: lib.genAttrs names (_: true)) (types.attrsOf types.bool); default = { }; };
    checkJournalingFS = mkOption { type = types.bool; default = true; };
    compressor = mkOption { type = types.raw; default = "zstd"; };
    verbose = mkOption { type = types.bool; default = true; };
    secrets = mkOption { type = types.attrsOf (types.nullOr types.path); default = { }; };
    network.enable = mkOption { type = types.bool; default = false; };
  } // lib.genAttrs [ "preDeviceCommands" "preLVMCommands" "postDeviceCommands" "postResumeCommands" "postMountCommands" "preFailCommands" "extraUtilsCommands" "extraUtilsCommandsTest" "extraFiles" ]
    (_: mkOption { type = types.lines; default = ""; });

  config = lib.mkIf config.boot.initrd.enable {
    boot.initrd.availableKernelModules = [ "virtio_net" "virtio_pci" "virtio_mmio" "virtio_blk" "9p" "9pnet_virtio" "overlay" "ext4" "virtio_rng" ];
    system.build.initialRamdisk = lib.mkIf (!cfg.systemd.enable) initrd;
    system.build.bootStage1 = lib.mkIf (!cfg.systemd.enable) initrd;
    boot.loader.supportsInitrdSecrets = lib.mkDefault false;
  };
  options.boot.loader.supportsInitrdSecrets = mkOption { type = types.bool; internal = true; default = false; };
}
