# Options of a virtual machine.
{ config, options, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.virtualisation;
  flag = default: mkOption { type = types.bool; inherit default; };
  drive = { config, ... }: {
    options = {
      file = mkOption { type = types.str; };
      name = mkOption { type = types.nullOr types.str; default = null; };
      driveExtraOpts = mkOption { type = types.attrsOf types.str; default = { }; };
      deviceExtraOpts = mkOption { type = types.attrsOf types.str; default = { }; };
    };
  };
in
{
  options.virtualisation = {
    fileSystems = options.fileSystems;
    memorySize = mkOption { type = types.ints.positive; default = 1024; };
    # Real NixOS has 16384; larger messages make a boot without KVM bearable.
    msize = mkOption { type = types.ints.positive; default = 262144; };
    diskSize = mkOption { type = types.ints.positive; default = 1024; };
    diskImage = mkOption { type = types.nullOr types.str; default = "./${config.system.name}.qcow2"; };
    bootLoaderDevice = mkOption { type = types.path; default = "/dev/disk/by-id/virtio-root"; };
    bootPartition = mkOption { type = types.nullOr types.path; default = if cfg.useEFIBoot then "/dev/disk/by-label/ESP" else null; };
    rootDevice = mkOption { type = types.nullOr types.path; default = "/dev/disk/by-label/nixos"; };
    emptyDiskImages = mkOption { type = types.listOf (types.coercedTo types.ints.positive (size: { inherit size; }) (types.submodule { options = { size = mkOption { type = types.ints.positive; }; driveConfig = mkOption { type = types.attrs; default = { }; }; }; })); default = [ ]; };
    graphics = flag true;
    resolution = mkOption { type = types.attrsOf types.int; default = { x = 1024; y = 768; }; };
    cores = mkOption { type = types.ints.positive; default = 1; };
    sharedDirectories = mkOption {
      type = types.attrsOf (types.submodule {
        options = {
          source = mkOption { type = types.str; };
          target = mkOption { type = types.path; };
          securityModel = mkOption { type = types.enum [ "passthrough" "mapped-xattr" "mapped-file" "none" ]; default = "mapped-xattr"; };
        };
      });
      default = { };
    };
    additionalPaths = mkOption { type = types.listOf types.path; default = [ ]; };
    forwardPorts = mkOption {
      type = types.listOf (types.submodule {
        options = {
          from = mkOption { type = types.enum [ "host" "guest" ]; default = "host"; };
          proto = mkOption { type = types.enum [ "tcp" "udp" ]; default = "tcp"; };
          host.address = mkOption { type = types.str; default = ""; };
          host.port = mkOption { type = types.port; };
          guest.address = mkOption { type = types.str; default = ""; };
          guest.port = mkOption { type = types.port; };
        };
      });
      default = [ ];
    };
    restrictNetwork = flag false;
    vlans = mkOption { type = types.listOf types.ints.unsigned; default = [ ]; };
    interfaces = mkOption { type = types.attrsOf types.attrs; default = { }; };
    writableStore = flag cfg.mountHostNixStore;
    writableStoreUseTmpfs = flag true;
    mountHostNixStore = flag (!cfg.useNixStoreImage && !cfg.useBootLoader);
    useNixStoreImage = flag false;
    useBootLoader = flag false;
    useEFIBoot = flag false;
    useDefaultFilesystems = flag true;
    useHostCerts = flag false;
    installBootLoader = flag cfg.useBootLoader;
    directBoot.enable = flag (!cfg.useBootLoader);
    directBoot.initrd = mkOption { type = types.str; default = "${config.system.build.initialRamdisk}/${config.system.boot.loader.initrdFile}"; };
    tpm = {
      enable = flag false;
      package = mkOption { type = types.package; default = cfg.host.pkgs.swtpm; };
      deviceModel = mkOption { type = types.str; default = "tpm-tis"; };
    };
    efi.keepVariables = flag true;
    efi.firmware = mkOption { type = types.path; default = "${pkgs.debian}/usr/share/OVMF/OVMF_CODE_4M.fd"; };
    efi.variables = mkOption { type = types.path; default = "${pkgs.debian}/usr/share/OVMF/OVMF_VARS_4M.fd"; };
    bios = mkOption { type = types.nullOr types.package; default = null; };
    host.pkgs = mkOption { type = types.raw; default = pkgs; };
    qemu = {
      package = mkOption { type = types.package; default = cfg.host.pkgs.qemu_kvm; };
      options = mkOption { type = types.listOf types.str; default = [ ]; };
      consoles = mkOption { type = types.listOf types.str; default = if cfg.graphics then [ "ttyS0,115200n8" "tty0" ] else [ "tty0" "ttyS0,115200n8" ]; };
      networkingOptions = mkOption { type = types.listOf types.str; default = [ ]; };
      drives = mkOption { type = types.listOf (types.submodule drive); default = [ ]; };
      diskInterface = mkOption { type = types.enum [ "virtio" "scsi" "ide" ]; default = "virtio"; };
      guestAgent.enable = flag true;
      virtioKeyboard = flag true;
    };
  };
}
