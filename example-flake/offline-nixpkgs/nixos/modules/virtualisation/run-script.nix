# The script that runs a virtual machine. Its variables and their meaning are those of NixOS.
{ config, lib, host, closure, imageClosure, systemImage, drives }:
let
  cfg = config.virtualisation;
  qemu = cfg.qemu;
  tools = host.hostTools;
  shares = lib.mapAttrsToList (tag: share: "-virtfs local,path=${share.source},security_model=${share.securityModel},mount_tag=${tag}") cfg.sharedDirectories;
in
host.writeShellScript "run-nixos-vm" ''
  export PATH=${tools}/bin''${PATH:+:}$PATH
  set -e

  # Make a disk image of the given size with a file system that stage 1 finds by its label.
  createEmptyFilesystemImage() {
    local name=$1 size=$2 temp
    temp=$(mktemp)
    ${qemu.package}/bin/qemu-img create -f raw "$temp" "$size"
    mkfs.ext4 -q -L nixos "$temp"
    ${qemu.package}/bin/qemu-img convert -f raw -O qcow2 "$temp" "$name"
    rm "$temp"
  }

  NIX_DISK_IMAGE=$(readlink -f "''${NIX_DISK_IMAGE:-${toString cfg.diskImage}}") || test -z "$NIX_DISK_IMAGE"
  if test -n "$NIX_DISK_IMAGE" && ! test -e "$NIX_DISK_IMAGE"; then
    echo "Disk image do not exist, creating the virtualisation disk image..."
    ${if cfg.useBootLoader
      then ''${qemu.package}/bin/qemu-img create -f qcow2 -b ${systemImage}/nixos.qcow2 -F qcow2 "$NIX_DISK_IMAGE"''
      else if !cfg.useDefaultFilesystems
      then ''${qemu.package}/bin/qemu-img create -f qcow2 "$NIX_DISK_IMAGE" "${toString cfg.diskSize}M"''
      else ''createEmptyFilesystemImage "$NIX_DISK_IMAGE" "${toString cfg.diskSize}M"''}
    echo "Virtualisation disk image created."
  fi

  ${lib.optionalString cfg.useEFIBoot ''
    NIX_EFI_VARS=$(readlink -f "''${NIX_EFI_VARS:-${config.system.name}-efi-vars.fd}")
    if ! test -e "$NIX_EFI_VARS"; then
      cp ${cfg.efi.variables} "$NIX_EFI_VARS"
      chmod 0644 "$NIX_EFI_VARS"
    fi
  ''}
  ${lib.optionalString cfg.tpm.enable ''
    NIX_SWTPM_DIR=$(readlink -f "''${NIX_SWTPM_DIR:-${config.system.name}-swtpm}")
    mkdir -p "$NIX_SWTPM_DIR"
    ${lib.getExe cfg.tpm.package} socket --tpm2 --daemon \
      --tpmstate dir="$NIX_SWTPM_DIR" \
      --ctrl type=unixio,path="$NIX_SWTPM_DIR"/socket --terminate \
      --pid file="$NIX_SWTPM_DIR"/pid \
      --log file="$NIX_SWTPM_DIR"/stdout,level=6
  ''}
  # Create a directory for storing temporary data of the running VM.
  if [ -z "$TMPDIR" ] || [ -z "$USE_TMPDIR" ]; then
    TMPDIR=$(mktemp -d nix-vm.XXXXXXXXXX --tmpdir 2>/dev/null || mktemp -d -t nix-vm.XXXXXXXXXX)
    export TMPDIR
  fi
  mkdir -p "$TMPDIR/xchg"

  ${lib.optionalString cfg.useNixStoreImage ''
    echo "Creating Nix store image..."
    rm -f "$TMPDIR/store.img"
    sed 's,^${builtins.storeDir}/,,' ${imageClosure}/store-paths |
      tar --create --directory ${builtins.storeDir} --files-from - --owner 0 --group 0 --numeric-owner |
      mkfs.erofs --quiet --tar=f -T 0 --force-uid=0 --force-gid=0 -L nix-store -U eb176051-bd15-49b7-9e6b-462e0b467019 "$TMPDIR/store.img"
    echo "Created Nix store image."
  ''}
  ${lib.optionalString cfg.useHostCerts ''
    mkdir -p "$TMPDIR/certs"
    if [ -e "$NIX_SSL_CERT_FILE" ]; then cp -L "$NIX_SSL_CERT_FILE" "$TMPDIR"/certs/ca-certificates.crt; fi
  ''}
  cd "$TMPDIR"

  ${lib.concatImapStrings (n: disk: ''
    if ! test -e "empty${toString (n - 1)}.qcow2"; then ${qemu.package}/bin/qemu-img create -f qcow2 "empty${toString (n - 1)}.qcow2" "${toString disk.size}M"; fi
  '') cfg.emptyDiskImages}

  # Hardware acceleration where the device can be opened.
  # Without it, on a busy machine, the kernel may take its timer for broken; under KVM it knows not to test it.
  accelerate=
  timer=no_timer_check
  if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then accelerate="-enable-kvm"; fi

  exec ${qemu.package}/bin/qemu-system-x86_64 -cpu max $accelerate \
      -name ${config.system.name} \
      -m ${toString cfg.memorySize} \
      -smp ${toString cfg.cores} \
      -device virtio-rng-pci \
      ${lib.concatStringsSep " \\\n    " (qemu.networkingOptions ++ shares ++ drives)} \
      ${lib.optionalString cfg.directBoot.enable ''-kernel ''${NIXPKGS_QEMU_KERNEL_${lib.replaceStrings [ "-" "." ] [ "_" "_" ] config.system.name}:-${config.system.build.toplevel}/kernel} \
      -initrd ${cfg.directBoot.initrd} \
      -append "$(cat ${config.system.build.toplevel}/kernel-params) init=${config.system.build.toplevel}/init regInfo=${closure}/registration $timer $QEMU_KERNEL_PARAMS"''} \
      ${lib.concatStringsSep " \\\n    " qemu.options} \
      $QEMU_OPTS \
      "$@"
''
