# What makes a host a virtual machine: its file systems, its kernel's needs, and the script that runs it.
{ config, options, lib, pkgs, ... }:
let
  cfg = config.virtualisation;
  qemu = cfg.qemu;
  host = cfg.host.pkgs;

  # What the guest's Nix is told that it has. An image of the store also holds that list itself.
  closure = host.closureInfo { rootPaths = cfg.additionalPaths; };
  imageClosure = host.closureInfo { rootPaths = [ closure ] ++ cfg.additionalPaths; };

  forwarding = lib.concatMapStrings
    (f:
      if f.from == "host" then "hostfwd=${f.proto}:${f.host.address}:${toString f.host.port}-${f.guest.address}:${toString f.guest.port},"
      else "'guestfwd=${f.proto}:${f.guest.address}:${toString f.guest.port}-cmd:nc ${f.host.address} ${toString f.host.port}',")
    cfg.forwardPorts;

  pairs = set: lib.concatStrings (lib.mapAttrsToList (n: v: ",${n}=${v}") set);
  driveOptions = index: drive:
    let name = if drive.name == null then "drive${toString index}" else drive.name; in
    "-drive index=${toString index},id=${name},if=none,file=${drive.file}${pairs drive.driveExtraOpts} -device virtio-blk-pci,drive=${name}${pairs drive.deviceExtraOpts}";

  # The whole disk, with its boot loader installed.
  systemImage = import ./disk-image.nix { inherit config lib pkgs; };

  bySystemd = config.boot.initrd.systemd.enable;

  script = import ./run-script.nix { inherit config lib host closure imageClosure systemImage; drives = lib.imap1 driveOptions qemu.drives; };
in
{
  imports = [ ./qemu-options.nix ];

  config = {
    assertions = [
      { assertion = cfg.useBootLoader -> config.boot.loader.systemd-boot.enable; message = "The offline stand-in has one boot loader: vmWithBootLoader needs boot.loader.systemd-boot.enable = true, or real nixpkgs."; }
    ];
    # As in NixOS, the host's own file systems and loader have no place in the VM.
    boot.loader.grub.enable = lib.mkVMOverride false;
    boot.loader.systemd-boot.enable = lib.mkIf (!cfg.useBootLoader) (lib.mkVMOverride false);
    boot.loader.timeout = lib.mkVMOverride 0;
    boot.loader.supportsInitrdSecrets = lib.mkForce false;
    boot.initrd.luks.devices = (if cfg.useDefaultFilesystems then lib.mkVMOverride else lib.mkDefault) { };
    boot.initrd.availableKernelModules = lib.optional cfg.useNixStoreImage "erofs" ++ lib.optional cfg.useEFIBoot "efivarfs" ++ lib.optional cfg.tpm.enable "tpm_tis";
    boot.initrd.secrets = lib.mkVMOverride { };
    swapDevices = (if cfg.useDefaultFilesystems then lib.mkVMOverride else lib.mkDefault) [ ];
    fileSystems = lib.mkVMOverride cfg.fileSystems;
    services.timesyncd.enable = lib.mkVMOverride false;
    networking.wireless.enable = lib.mkVMOverride false;
    networking.usePredictableInterfaceNames = lib.mkDefault false;
    powerManagement.enable = lib.mkVMOverride true;
    services.qemuGuest.enable = lib.mkDefault cfg.qemu.guestAgent.enable;

    virtualisation.additionalPaths = [ config.system.build.toplevel ];
    virtualisation.fileSystems = lib.mkMerge [
      (lib.mkIf cfg.useDefaultFilesystems {
        "/" = if cfg.diskImage == null then { device = "tmpfs"; fsType = "tmpfs"; } else { device = cfg.rootDevice; fsType = "ext4"; };
      })
      (lib.mkIf (cfg.useBootLoader && cfg.bootPartition != null) {
        "/boot" = { device = cfg.bootPartition; fsType = "vfat"; options = [ "umask=0077" ]; };
      })
      (lib.mapAttrs'
        (tag: share: lib.nameValuePair share.target {
          device = tag;
          fsType = "9p";
          neededForBoot = true;
          options = [ "trans=virtio" "version=9p2000.L" "msize=${toString cfg.msize}" "x-systemd.requires=modprobe@9pnet_virtio.service" ] ++ lib.optional (tag == "nix-store") "cache=loose";
        })
        cfg.sharedDirectories)
      (lib.mkIf (cfg.mountHostNixStore || cfg.useNixStoreImage) {
        # systemd in stage 1 makes the overlay itself: see rw-store below.
        "/nix/store" = lib.mkIf (cfg.writableStore && !bySystemd) {
          overlay = { lowerdir = [ "/nix/.ro-store" ]; upperdir = "/nix/.rw-store/upper"; workdir = "/nix/.rw-store/work"; };
          fsType = "overlay";
          neededForBoot = true;
        };
      })
      (lib.mkIf (cfg.mountHostNixStore && !cfg.writableStore) { })
      (lib.mkIf cfg.useNixStoreImage {
        "/nix/${if cfg.writableStore then ".ro-store" else "store"}" = { device = "/dev/vd${if cfg.diskImage == null then "a" else "b"}"; fsType = "erofs"; neededForBoot = true; options = [ "ro" ]; };
      })
      (lib.mkIf (cfg.writableStore && cfg.writableStoreUseTmpfs) {
        "/nix/.rw-store" = { fsType = "tmpfs"; options = [ "mode=0755" ]; neededForBoot = true; };
      })
    ];

    boot.initrd.systemd = lib.mkIf (bySystemd && cfg.writableStore) {
      mounts = [{
        where = "/sysroot/nix/store";
        what = "overlay";
        type = "overlay";
        options = "lowerdir=/sysroot/nix/.ro-store,upperdir=/sysroot/nix/.rw-store/upper,workdir=/sysroot/nix/.rw-store/work";
        wantedBy = [ "initrd-fs.target" ];
        before = [ "initrd-fs.target" ];
        requires = [ "rw-store.service" ];
        after = [ "rw-store.service" ];
        unitConfig.RequiresMountsFor = "/sysroot/nix/.ro-store";
      }];
      services.rw-store = {
        before = [ "shutdown.target" ];
        conflicts = [ "shutdown.target" ];
        unitConfig = { DefaultDependencies = false; RequiresMountsFor = "/sysroot/nix/.rw-store"; };
        serviceConfig = { Type = "oneshot"; ExecStart = "/bin/mkdir -p -m 0755 /sysroot/nix/.rw-store/upper /sysroot/nix/.rw-store/work /sysroot/nix/store"; };
      };
    };

    virtualisation.sharedDirectories = {
      nix-store = lib.mkIf cfg.mountHostNixStore { source = builtins.storeDir; target = if cfg.writableStore then "/nix/.ro-store" else "/nix/store"; securityModel = "none"; };
      xchg = { source = ''"$TMPDIR"/xchg''; target = "/tmp/xchg"; securityModel = "none"; };
      shared = { source = ''"''${SHARED_DIR:-$TMPDIR/xchg}"''; target = "/tmp/shared"; securityModel = "none"; };
      certs = lib.mkIf cfg.useHostCerts { source = ''"$TMPDIR"/certs''; target = "/etc/ssl/certs"; securityModel = "none"; };
    };

    virtualisation.qemu.networkingOptions = [
      "-net nic,netdev=user.0,model=virtio"
      "-netdev user,id=user.0,${forwarding}${lib.optionalString cfg.restrictNetwork "restrict=on,"}\"$QEMU_NET_OPTS\""
    ];
    virtualisation.qemu.options = lib.mkMerge [
      (lib.mkIf qemu.virtioKeyboard [ "-device virtio-keyboard" ])
      (lib.mkIf cfg.useEFIBoot [
        "-drive if=pflash,format=raw,unit=0,readonly=on,file=${cfg.efi.firmware}"
        ''-drive if=pflash,format=raw,unit=1,readonly=off,file="$NIX_EFI_VARS"''
      ])
      (lib.mkIf cfg.tpm.enable [
        ''-chardev socket,id=chrtpm,path="$NIX_SWTPM_DIR"/socket''
        "-tpmdev emulator,id=tpm_dev_0,chardev=chrtpm"
        "-device ${cfg.tpm.deviceModel},tpmdev=tpm_dev_0"
      ])
      (lib.mkIf (cfg.graphics) [ "-usb" "-device usb-tablet,bus=usb-bus.0" ])
      (lib.mkIf (!cfg.graphics) [ "-nographic" ])
    ];
    virtualisation.qemu.drives = lib.mkMerge [
      (lib.mkIf (cfg.diskImage != null) [{ name = "root"; file = ''"$NIX_DISK_IMAGE"''; driveExtraOpts = { cache = "writeback"; werror = "report"; }; deviceExtraOpts = { bootindex = "1"; serial = "root"; }; }])
      (lib.mkIf cfg.useNixStoreImage [{ name = "nix-store"; file = ''"$TMPDIR"/store.img''; deviceExtraOpts.bootindex = "2"; driveExtraOpts.format = "raw"; }])
      (lib.imap0 (n: _: { file = "$(pwd)/empty${toString n}.qcow2"; driveExtraOpts.werror = "report"; }) cfg.emptyDiskImages)
    ];

    boot.kernelParams = map (c: "console=${c}") qemu.consoles;

    # The guest's Nix learns what it has, and the running system becomes its first generation.
    boot.postBootCommands = ''
      for option in $(cat /proc/cmdline); do
        case $option in
          regInfo=*)
            ${pkgs.nix}/bin/nix-store --load-db < "''${option#regInfo=}"
            ;;
        esac
      done
      # A disk with a boot loader brings the list of its store along.
      if [ -e /nix-path-registration ]; then
        ${pkgs.nix}/bin/nix-store --load-db < /nix-path-registration && rm /nix-path-registration
      fi
      if [ ! -e /nix/var/nix/profiles/system ]; then
        ${pkgs.nix}/bin/nix-env -p /nix/var/nix/profiles/system --set "$systemConfig"
      fi
    '';
    system.build.vm = host.runCommand "nixos-vm" { meta.mainProgram = "run-${config.system.name}-vm"; } ''
      mkdir -p $out/bin
      ln -s ${config.system.build.toplevel} $out/system
      ln -s ${script} $out/bin/run-${config.system.name}-vm
    '';
  };
}
