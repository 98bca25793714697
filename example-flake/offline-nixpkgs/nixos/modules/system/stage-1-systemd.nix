# systemd in the initial RAM disk, as system/boot/systemd/initrd.nix has it: without networkd, sshd, users of its own, plymouth and firmware.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.boot.initrd.systemd;
  kernel = config.boot.kernelPackages.kernel;
  package = config.systemd.package;
  unitOptions = import ../systemd/unit-options.nix { inherit lib pkgs config; };
  render = import ../systemd/render.nix { inherit lib; };
  inherit (import ../systemd/unit-folder.nix { inherit lib pkgs unitOptions; }) named plain unitFolder unitsOption;

  kindOf = module: mkOption { default = { }; type = types.attrsOf (types.submodule module); };

  upstreamUnits = [
    "basic.target" "ctrl-alt-del.target" "debug-shell.service" "emergency.service" "emergency.target" "final.target" "halt.target"
    "initrd-cleanup.service" "initrd-fs.target" "initrd-parse-etc.service" "initrd-root-device.target" "initrd-root-fs.target"
    "initrd-switch-root.service" "initrd-switch-root.target" "initrd.target" "initrd-udevadm-cleanup-db.service" "kexec.target"
    "kmod-static-nodes.service" "local-fs-pre.target" "local-fs.target" "modprobe@.service" "multi-user.target" "paths.target" "poweroff.target"
    "reboot.target" "rescue.service" "rescue.target" "shutdown.target" "sigpwr.target" "slices.target" "sockets.target" "swap.target"
    "sysinit.target" "sys-kernel-config.mount" "syslog.socket" "systemd-ask-password-console.path" "systemd-ask-password-console.service"
    "systemd-fsck@.service" "systemd-halt.service" "systemd-journald-dev-log.socket" "systemd-journald.service" "systemd-journald.socket"
    "systemd-kexec.service" "systemd-modules-load.service" "systemd-poweroff.service" "systemd-reboot.service" "systemd-sysctl.service"
    "systemd-tmpfiles-setup-dev.service" "systemd-tmpfiles-setup-dev-early.service" "systemd-udevd-control.socket" "systemd-udevd-kernel.socket" "systemd-udevd.service" "systemd-udev-settle.service"
    "systemd-udev-trigger.service" "timers.target" "umount.target"
  ] ++ cfg.additionalUpstreamUnits;

  units = unitFolder {
    name = "initrd-units";
    inherit package upstreamUnits;
    inherit (cfg) packages units;
    upstreamWants = [ "sysinit.target.wants" "sockets.target.wants" ];
    links = "ln -sfn reboot.target $out/ctrl-alt-del.target";
  };

  # The modules that are named and those that they need, with the lists by which modprobe finds them.
  modules = pkgs.runCommand "${kernel.name}-initrd-modules" { } ''
    folder=lib/modules/${kernel.modDirVersion}
    mkdir -p $out/$folder
    for module in ${lib.escapeShellArgs (lib.unique (config.boot.initrd.availableKernelModules ++ config.boot.initrd.kernelModules ++ config.boot.initrd.fileSystemModules))}; do
      tree modprobe --dirname ${kernel} --set-version ${kernel.modDirVersion} --ignore-install --show-depends "$module" 2>/dev/null || echo "# $module is built in or unknown"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
      name=$folder/''${file##*/$folder/}
      mkdir -p "$out/''${name%/*}"
      cp "$file" "$out/$name"
    done
    cp ${kernel}/$folder/modules.{order,builtin,builtin.modinfo} $out/$folder/
    tree depmod -b $out -m /lib/modules ${kernel.modDirVersion} 2>/dev/null || tree depmod -b $out ${kernel.modDirVersion}
  '';

  binEnv = pkgs.buildEnv {
    name = "initrd-bin-env";
    paths = cfg.initrdBin;
    pathsToLink = [ "/bin" ];
    postBuild = lib.concatStrings (lib.mapAttrsToList (name: program: "ln -sfn '${program}' $out/bin/'${name}'\n") cfg.extraBin);
  };

  # NixOS' own rules lead to programs in the store; those of the tree to their places, which the RAM disk has.
  rules = pkgs.runCommand "initrd-udev-rules" { } ''
    mkdir $out
    for name in 50-udev-default 60-block 60-cdrom_id 60-persistent-storage 64-btrfs 75-net-description 80-drivers 80-net-setup-link 99-systemd ${toString cfg.udevRules}; do
      cp $debian/usr/lib/udev/rules.d/$name.rules $out/
    done
  '';

  fstab = pkgs.writeText "initrd-fstab" (lib.concatMapStrings config.system.build.fstabLine (lib.filter utils.fsNeededForBoot config.system.build.fileSystems));

  contents = map (source: { source = "${source}"; target = null; }) cfg.storePaths
    ++ lib.mapAttrsToList (_: entry: { source = "${entry.source}"; inherit (entry) target; }) (lib.filterAttrs (_: entry: entry.enable) cfg.contents);

  initrd = pkgs.runCommand "initrd-${kernel.name}" { contents = builtins.toJSON contents; passAsFile = [ "contents" ]; } ''
    root=$TMPDIR/root
    mkdir -p $root/{dev,etc,proc,run,sys,sysroot,tmp,usr/bin,usr/sbin,usr/lib,var/empty} $out
    ln -s usr/lib $root/lib
    ln -s usr/lib64 $root/lib64
    PYTHONHOME=$debian/usr tree python3 -S ${../../scripts/make-initrd.py} $debian "$contentsPath" $root
    (cd $root && find . | sort | cpio -o -H newc -R 0:0 2>/dev/null) > $out/initrd
  '';

  own = name: "${package}/lib/systemd/${name}";
  shared = name: "${pkgs.debian}/usr/lib/x86_64-linux-gnu/${name}";
in
{
  options.boot.initrd.systemd = {
    contents = mkOption {
      default = { };
      type = types.attrsOf (types.submodule ({ name, config, ... }: {
        options = {
          enable = mkOption { type = types.bool; default = true; };
          target = mkOption { type = types.path; default = name; };
          text = mkOption { type = types.nullOr types.lines; default = null; };
          source = mkOption { type = types.path; };
        };
        config.source = lib.mkIf (config.text != null) (lib.mkDefault (pkgs.writeText "initrd-${baseNameOf name}" config.text));
      }));
    };
    storePaths = mkOption { type = types.listOf (types.oneOf [ types.singleLineStr types.package ]); default = [ ]; };
    initrdBin = mkOption { type = types.listOf types.package; default = [ ]; };
    extraBin = mkOption { type = types.attrsOf types.path; default = { }; };
    packages = mkOption { type = types.listOf types.package; default = [ ]; };
    additionalUpstreamUnits = mkOption { type = types.listOf types.str; default = [ ]; };
    managerEnvironment = mkOption { type = types.attrsOf (types.nullOr types.str); default = { }; };
    # nixpkgs has packages of rules; these are names of Debian's.
    udevRules = mkOption { type = types.listOf types.str; internal = true; default = [ ]; };
    units = unitsOption;
    services = kindOf unitOptions.initrdService;
    targets = kindOf unitOptions.target;
    sockets = kindOf unitOptions.socket;
    paths = kindOf unitOptions.path;
    mounts = mkOption { type = types.listOf (types.submodule [ unitOptions.mount { _module.args.name = lib.mkDefault "mount"; } ]); default = [ ]; };
  };

  config = lib.mkIf (config.boot.initrd.enable && cfg.enable) {
    assertions = map
      (name: { assertion = config.boot.initrd.${name} == ""; message = "systemd stage 1 does not support 'boot.initrd.${name}'. Please\n  convert it to analogous systemd units in 'boot.initrd.systemd'."; })
      [ "preFailCommands" "preDeviceCommands" "preLVMCommands" "postDeviceCommands" "postResumeCommands" "postMountCommands" "extraUtilsCommands" "extraUtilsCommandsTest" ]
      ++ [{ assertion = !config.boot.initrd.network.enable; message = "The offline stand-in has no network in an initrd of systemd: set boot.initrd.network.enable = false."; }];

    system.build.initialRamdisk = initrd;
    boot.initrd.availableKernelModules = [ "autofs4" ];
    boot.kernelParams = [ "root=fstab" ];

    boot.initrd.systemd = {
      initrdBin = [ pkgs.bashInteractive pkgs.coreutils pkgs.kmod package pkgs.e2fsprogs ];
      extraBin = lib.genAttrs [ "mount" "umount" "fsck" ] (name: "${pkgs.util-linux}/bin/${name}") // {
        # The stand-in's programs need Debian's paths in a new root too, as stage 2 gives them.
        chroot = pkgs.writeShellScript "chroot" ''
          ${pkgs.debian}/usr/sbin/chroot "$1" ${config.system.build.linkDebianPaths}
          exec ${pkgs.debian}/usr/sbin/chroot "$@"
        '';
      };
      managerEnvironment = { PATH = "/bin:/sbin"; SYSTEMD_SYSROOT_FSTAB = "${fstab}"; };
      contents = {
        "/tmp/.keep".text = "systemd requires the /tmp mount point in the initrd cpio archive";
        "/init".source = own "systemd";
        "/etc/systemd/system".source = units;
        "/etc/systemd/system.conf".text = ''
          [Manager]
          DefaultEnvironment=PATH=/bin:/sbin
          ManagerEnvironment=${lib.concatStringsSep " " (lib.mapAttrsToList (name: value: "${name}=${lib.escapeShellArg value}") cfg.managerEnvironment)}
        '';
        "/usr/lib/modules".source = "${modules}/lib/modules";
        "/usr/lib/udev/rules.d".source = rules;
        "/etc/modules-load.d/nixos.conf".text = lib.concatStringsSep "\n" config.boot.initrd.kernelModules;
        "/etc/modprobe.d/nixos.conf".source = config.environment.etc."modprobe.d/nixos.conf".source;
        "/etc/modprobe.d/systemd.conf".source = config.environment.etc."modprobe.d/systemd.conf".source;
        "/etc/passwd".text = "root:x:0:0:System administrator:/root:/bin/sh\n";
        "/etc/group".text = "root:x:0:\nsystemd-journal:x:62:\n";
        "/etc/shadow".text =
          let
            access = cfg.emergencyAccess;
            isOpen = access != null && access != false;
          in
          "root:${if !isOpen then "*" else if lib.isString access then access else ""}:::::::";
        "/bin".source = "${binEnv}/bin";
        "/sbin".source = "${binEnv}/bin";
        "/etc/sysctl.d/nixos.conf".text = "kernel.modprobe = /sbin/modprobe";
        "/etc/os-release".source = config.boot.initrd.osRelease;
        "/etc/initrd-release".source = config.boot.initrd.osRelease;
        "/etc/hostname".text = config.networking.hostName;
      }
      # Cards have their names from here on.
      // lib.mapAttrs' (name: entry: lib.nameValuePair "/etc/${name}" { inherit (entry) source; })
        (lib.filterAttrs (name: _: lib.hasPrefix "systemd/network/" name && lib.hasSuffix ".link" name) config.environment.etc);
      storePaths = map own [
        "systemd-executor" "systemd-fsck" "systemd-journald" "systemd-makefs" "systemd-growfs" "systemd-modules-load" "systemd-remount-fs" "systemd-shutdown"
        "systemd-sulogin-shell" "systemd-sysctl" "systemd-sysroot-fstab-check" "systemd-udevd" "network/99-default.link"
        "system-generators/systemd-debug-generator" "system-generators/systemd-fstab-generator" "system-generators/systemd-gpt-auto-generator" "system-generators/systemd-run-generator"
      ] ++ map (name: "${package}/lib/udev/${name}") [ "ata_id" "cdrom_id" "scsi_id" ]
      ++ map (name: "${pkgs.debian}/usr/bin/${name}") [ "mount" "umount" "udevadm" "systemctl" "journalctl" "systemd-tty-ask-password-agent" "systemd-tmpfiles" "kmod" ]
      ++ map (name: "${pkgs.debian}/usr/sbin/${name}") [ "chroot" "sulogin" "modprobe" "fsck" "fsck.ext4" ]
      # What systemd loads while it runs.
      ++ map shared [ "libkmod.so.2" "libcryptsetup.so.12" "liblz4.so.1" "libzstd.so.1" ]
      ++ [ fstab "${pkgs.bash}/bin" ]
      ++ lib.concatMap (service: service.jobScripts) (lib.filter (service: service.enable) (lib.attrValues cfg.services));

      units = lib.mkMerge [
        (named render.service cfg.services)
        (named render.target cfg.targets)
        (named render.socket cfg.sockets)
        (named render.path cfg.paths)
        (lib.listToAttrs (map (unit: lib.nameValuePair "${utils.escapeSystemdPath unit.where}.mount" (plain render.mount unit)) cfg.mounts))
      ];
      targets.initrd.aliases = [ "default.target" ];
      services.initrd-parse-etc.environment.SYSTEMD_SYSROOT_FSTAB = "${fstab}";

      services.initrd-nixos-activation = {
        description = "NixOS Activation";
        after = [ "initrd-fs.target" ];
        requiredBy = [ "initrd.target" ];
        unitConfig.AssertPathExists = "/etc/initrd-release";
        serviceConfig.Type = "oneshot";
        script = ''
          set -uo pipefail
          closure=
          for option in $(< /proc/cmdline); do
            case $option in
              init=*) closure=''${option#init=} ;;
            esac
          done
          if [ -z "$closure" ]; then
            echo 'No init= parameter on the kernel command line' >&2
            exit 1
          fi
          init=$closure
          closure=$(dirname "$(chroot /sysroot ${pkgs.busybox}/bin/realpath "$closure")")
          # The disk of a system that is not NixOS is started as it is.
          if ! [ -e "/sysroot$closure/prepare-root" ]; then
            echo "NEW_INIT=$init" > /etc/switch-root.conf
            echo "$closure does not look like a NixOS installation - not activating"
            exit 0
          fi
          echo 'NEW_INIT=' > /etc/switch-root.conf
          mkdir -p /sysroot/run
          mount --bind /run /sysroot/run
          export IN_NIXOS_SYSTEMD_STAGE1=true
          exec chroot /sysroot "$closure/prepare-root"
        '';
      };
      services.initrd-switch-root.serviceConfig = {
        EnvironmentFile = "-/etc/switch-root.conf";
        ExecStart = [ "" "systemctl --no-block switch-root /sysroot \"\${NEW_INIT}\"" ];
      };
      services.panic-on-fail = {
        wantedBy = [ "emergency.target" ];
        unitConfig = { DefaultDependencies = false; ConditionKernelCommandLine = [ "|boot.panic_on_fail" "|stage1panic" ]; };
        script = "echo c > /proc/sysrq-trigger";
        serviceConfig.Type = "oneshot";
      };
    };
  };
}
