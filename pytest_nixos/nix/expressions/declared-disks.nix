# A VM with the disks that its host declares: file systems, swap and LUKS devices stay as they are, and stage 1 makes what they name
# on empty disks, by a script that the plugin hands in (machine/disks), with programs of the host's own packages.
#
# wanted: whether it was asked for; without it a VM has the disk that build-vm gives it.
{ safe, wanted }:
host:
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  # What the VM mounts itself, and what lies on other machines.
  storeMounts = [
    "/nix/store"
    "/nix/.ro-store"
    "/nix/.rw-store"
  ];
  remote = [
    "nfs"
    "nfs4"
    "cifs"
    "smb3"
    "ceph"
    "glusterfs"
    "9p"
    "virtiofs"
    "fuse.sshfs"
    "davfs"
  ];
  declared = host.config.fileSystems;
  opened = map (luks: "/dev/mapper/${luks.name}") (builtins.attrValues host.config.boot.initrd.luks.devices);
  isNamed =
    device:
    builtins.elem device opened
    || builtins.match "(/dev/disk/by-(label|uuid|partlabel|partuuid)/|(LABEL|UUID|PARTLABEL|PARTUUID)=).+" device != null
    || builtins.match "/dev/(vda|sd[a-z]|nvme[0-9]+n1)(p?[0-9]+)?" device != null
    || isArray device
    || isLogicalVolume device;
  isArray = device: builtins.match "/dev/md(/.+|_?[0-9]+)|/dev/disk/by-id/md-(name|uuid)-.+" device != null;
  # /dev/GROUP/VOLUME, or /dev/mapper/GROUP-VOLUME.
  isLogicalVolume =
    device:
    !(builtins.elem device opened)
    && (
      builtins.match "/dev/mapper/.+-.+" device != null
      || (
        builtins.match "/dev/[^/]+/[^/]+" device != null
        && builtins.match "/dev/(disk|mapper|md|zvol)/.*" device == null
      )
    );

  # A disk that only the real host has is waited for, even where it may be absent.
  isAway =
    name:
    let
      fs = declared.${name};
      optional = builtins.any (option: option == "nofail" || option == "noauto") fs.options;
    in
    builtins.elem fs.fsType remote
    || (optional && builtins.match "/dev/.*|[A-Z]+=.*" (toString fs.device) != null && !(isNamed (toString fs.device)));
  away = storeMounts ++ builtins.filter isAway (builtins.attrNames declared);

  definitions = path: map (definition: definition.value) (lib.getAttrFromPath path host.options).definitionsWithLocations;
  without = names: set: if builtins.isAttrs set && !(set ? _type) then removeAttrs set names else set;

  # NixOS writes a swap file full of zeroes.
  mostSwapMiB = 128;
  shrunk =
    entry:
    if builtins.isAttrs entry && builtins.isInt (entry.size or null) && entry.size > mostSwapMiB then
      entry // { size = mostSwapMiB; }
    else
      entry;

  fsTypes = lib.unique (map (fs: fs.fsType) (builtins.attrValues config.fileSystems));
  has = builtins.any (type: builtins.elem type fsTypes);
  inInitrd = builtins.filter (type: builtins.elem type fsTypes) [
    "btrfs"
    "ext4"
    "vfat"
    "xfs"
  ];
  devices = map (entry: toString entry.device) (
    builtins.attrValues config.fileSystems ++ config.swapDevices ++ builtins.attrValues config.boot.initrd.luks.devices
  );
  onLogicalVolume = builtins.any isLogicalVolume devices;
  crypttab = config.environment.etc.crypttab.text or null;
  hasLuks = config.boot.initrd.luks.devices != { } || (crypttab != null && crypttab != "");
  # Nixpkgs' scripted stage 1 follows no options of crypttab.
  hasTpm =
    lib.hasInfix "tpm2-device=" (toString crypttab)
    || (
      bySystemd
      && builtins.any (luks: builtins.any (lib.hasPrefix "tpm2-device=") luks.crypttabExtraOpts) (
        builtins.attrValues config.boot.initrd.luks.devices
      )
    );
  hasArrays = config.boot.swraid.enable or false;
  # disko makes what nothing mounts too.
  hasDisko = (host.config.disko.devices.disk or { }) != { };
  programs = [
    pkgs.coreutils
    pkgs.util-linux
    pkgs.e2fsprogs
    config.systemd.package
  ]
  ++ lib.optional (has [ "vfat" ]) pkgs.dosfstools
  ++ lib.optional (has [ "btrfs" ]) pkgs.btrfs-progs
  ++ lib.optional (has [ "xfs" ]) pkgs.xfsprogs
  ++ lib.optional hasLuks pkgs.cryptsetup
  ++ lib.optional (onLogicalVolume || hasLuks) pkgs.lvm2
  ++ lib.optional hasArrays pkgs.mdadm
  ++ lib.optionals hasDisko [
    pkgs.cryptsetup
    pkgs.lvm2
    pkgs.dosfstools
    pkgs.btrfs-progs
    pkgs.xfsprogs
  ];

  maker = pkgs.writeShellScript "pytest-nixos-disks" ''
    export PATH=${lib.makeBinPath programs}
    source /plan/make
  '';
  # The initrd would hold whatever its script refers to; this lies in the store, which is mounted for it.
  makerPath = builtins.unsafeDiscardStringContext "${maker}";

  store = config.fileSystems."/nix/.ro-store" or config.fileSystems."/nix/store";
  storeOptions = lib.concatStringsSep "," (
    [ "ro" ] ++ builtins.filter (option: option != "defaults" && option != "ro" && !(lib.hasPrefix "x-" option)) store.options
  );
  storeType = lib.optionalString (store.fsType != "auto") "-t ${store.fsType}";

  # mdadm runs where no module can be found.
  loadArrays = lib.optionalString hasArrays "for _module in md_mod raid0 raid1 raid10 raid456; do modprobe $_module || true; done";

  # systemd would see a device that is opened only to make what is in it, start what waits for it, and fail that when it is closed:
  # "Bound to unit dev-mapper-root.device, but unit isn't active". It sees what udev calls ready, by its last word.
  unready = "/run/udev/rules.d/99-zz-pytest-nixos.rules";
  hideDevices = lib.optionalString bySystemd ''
    mkdir -p /run/udev/rules.d
    echo 'SUBSYSTEM=="block", ENV{SYSTEMD_READY}="0"' > ${unready}
    udevadm control --reload
  '';
  showDevices = lib.optionalString bySystemd ''
    udevadm settle
    rm ${unready}
    udevadm control --reload
  '';

  # For the shells of both stages 1.
  makeDisks = ''
    modprobe qemu_fw_cfg || true
    ${loadArrays}
    ${lib.optionalString hasTpm "modprobe tpm_tis || true"}
    _plan=/sys/firmware/qemu_fw_cfg/by_name/opt/org.pytest-nixos/disks/raw
    if [ -e "$_plan" ]; then
      _room=/pytest-nixos-disks
      mkdir -p $_room/nix/store $_room/plan $_room/tmp
      cat "$_plan" > $_room/plan/make
      mount ${storeType} -o ${storeOptions} ${store.device} $_room/nix/store
      for _folder in dev proc sys run; do
        mkdir -p $_room/$_folder
        mount -o bind /$_folder $_room/$_folder
      done
      ${hideDevices}
      chroot $_room ${makerPath} || echo "pytest-nixos: the declared disks could not be made"
      for _folder in dev proc sys run nix/store; do umount $_room/$_folder || true; done
      ${showDevices}
      # What stage 1 itself reads: key files.
      if [ -d $_room/plan/stage-1 ]; then cp -r $_room/plan/stage-1/. /; fi
      rm -rf $_room/plan
      if type udevadm > /dev/null 2>&1; then
        # Arrays and groups of volumes on partitions are started where a device is added, not where it changes.
        udevadm trigger --action=add --subsystem-match=block
        udevadm settle
      fi
    fi
  '';

  bySystemd = config.boot.initrd.systemd.enable or false;
in
if !wanted then
  { }
else
  {
    _file = "pytest-nixos declared disks";

    config = lib.mkMerge [
      {
        virtualisation.useDefaultFilesystems = lib.mkForce false;
        virtualisation.additionalPaths = [ maker ];

        # Beside what the VM mounts, which nixpkgs gives the priority of mkVMOverride.
        fileSystems = lib.mkMerge (map (set: lib.mkOverride 10 (without away set)) (definitions [ "fileSystems" ]));
        swapDevices = lib.mkOverride 10 (map shrunk (builtins.concatLists (definitions [ "swapDevices" ])));

        boot.initrd.availableKernelModules = [
          "qemu_fw_cfg"
          "virtio_blk"
          "virtio_scsi"
          "sd_mod"
          "nvme"
        ]
        # Stage 1 makes them, though a host may open them in stage 2.
        ++ lib.optionals (hasLuks || onLogicalVolume || hasDisko) [
          "dm_mod"
          "dm_crypt"
        ];
        boot.initrd.supportedFilesystems = inInitrd;
      }
      (lib.optionalAttrs (options.virtualisation ? tpm) { virtualisation.tpm.enable = lib.mkIf hasTpm (lib.mkDefault true); })
      (lib.mkIf (!bySystemd) { boot.initrd.preLVMCommands = lib.mkOrder 100 makeDisks; })
      (lib.optionalAttrs (lib.hasAttrByPath [ "boot" "initrd" "systemd" "services" ] options) {
        boot.initrd.systemd.services.pytest-nixos-disks = lib.mkIf bySystemd {
          description = "Make the disks that the host declares";
          wantedBy = [ "initrd.target" ];
          # Passive targets (systemd.special(7)): what comes before them has to pull them in, or nothing waits for it.
          wants = [
            "systemd-udevd.service"
            "cryptsetup-pre.target"
            "local-fs-pre.target"
          ];
          after = [
            "systemd-udevd.service"
            "systemd-modules-load.service"
            "systemd-udev-trigger.service"
          ];
          before = [
            "cryptsetup-pre.target"
            "initrd-root-device.target"
            "local-fs-pre.target"
            "sysroot.mount"
            # It gets keys of the run.
            "sshd.service"
            "shutdown.target"
          ];
          conflicts = [ "shutdown.target" ];
          unitConfig.DefaultDependencies = false;
          serviceConfig = {
            Type = "oneshot";
            RemainAfterExit = true;
            StandardOutput = "journal+console";
            StandardError = "journal+console";
          };
          script = ''
            udevadm settle
            ${makeDisks}
          '';
        };
      })
    ];
  }
