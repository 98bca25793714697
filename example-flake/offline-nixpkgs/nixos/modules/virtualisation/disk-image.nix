# A whole disk: an EFI system partition with the boot loader installed on it, and a root with the system's closure.
{ config, lib, pkgs }:
let
  cfg = config.virtualisation;
  toplevel = config.system.build.toplevel;
  closure = pkgs.closureInfo { rootPaths = [ toplevel ]; };
  espMiB = 256;
in
pkgs.runCommand "nixos-disk-image" { } ''
  root=$TMPDIR/root
  profiles=$root/nix/var/nix/profiles
  mkdir -p $profiles $root/boot $root/etc $root/nix/store $out
  ln -s ${toplevel} $profiles/system-1-link
  ln -s system-1-link $profiles/system
  cp ${closure}/registration $root/nix-path-registration

  # The boot loader as the running system would install it.
  PYTHONHOME=$debian/usr tree python3 -S ${../../scripts/install-systemd-boot.py} \
    $(sed -n 's/.*install-systemd-boot.py \([^ ]*\) .*/\1/p' ${config.system.build.installBootLoader}) ${toplevel} $root

  disk=$TMPDIR/disk.raw
  truncate -s $((${toString (espMiB + 2)} + ${toString cfg.diskSize}))M $disk
  printf '%s\n' 'label: gpt' \
    'start=1MiB, size=${toString espMiB}MiB, type=uefi, name=ESP' \
    'start=${toString (espMiB + 1)}MiB, size=${toString cfg.diskSize}MiB, type=linux, name=root' | tree sfdisk --quiet $disk

  esp=$TMPDIR/esp.img
  truncate -s ${toString espMiB}M $esp
  tree mkfs.vfat -n ESP $esp >/dev/null
  (cd $root/boot && tree mcopy -s -i $esp EFI loader ::/)
  dd if=$esp of=$disk bs=1M seek=1 conv=notrunc 2>/dev/null
  rm -rf $root/boot/* $esp

  # As an archive, so that all belongs to root whoever builds.
  tree tar --create --file $TMPDIR/root.tar --directory $root --owner 0 --group 0 --numeric-owner .
  sed 's,^/,,' ${closure}/store-paths | tree tar --append --file $TMPDIR/root.tar --directory / --files-from - --owner 0 --group 0 --numeric-owner
  LD_LIBRARY_PATH=$debian/usr/lib/x86_64-linux-gnu tree mke2fs -q -t ext4 -L nixos -d $TMPDIR/root.tar -E offset=$((${toString (espMiB + 1)} * 1048576)) $disk ${toString cfg.diskSize}M
  rm $TMPDIR/root.tar
  tree qemu-img convert -f raw -O qcow2 $disk $out/nixos.qcow2
''
