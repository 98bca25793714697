# What a VM has and no container: a kernel, the programs that stage 1 takes along, and QEMU.
{ lib, final, package, programs, stand-in }:
let
  from = {
    e2fsprogs = [ "e2fsprogs" "libext2fs2t64" "libcom-err2" "libss2" ];
    kmod = [ "kmod" ];
    lvm2 = [ "lvm2" "dmsetup" ];
    util-linux = [ "util-linux" "mount" "bsdutils" "fdisk" "login" "util-linux-extra" ];
  };
  # For expressions of the stand-in, which name the tree and run its programs by `tree`.
  withTree = final // {
    debian = programs;
    runCommand = name: attributes: command: final.runCommand name attributes ''
      debian=${programs}
      tree() { PATH=$debian/usr/sbin:$PATH "$@"; }
      ${command}
    '';
  };
  hosted = import (stand-in + "/pkgs/hosted.nix") { shell = "${programs}/usr/bin/bash-static"; };
  kernel = import (stand-in + "/pkgs/linux.nix") { inherit lib; pkgs = withTree; };
in
{
  linux = kernel;
  linuxPackages = lib.makeExtensible (_: {
    kernel = lib.makeOverridable (_: kernel) { };
    inherit (kernel) kernelOlder kernelAtLeast stdenv;
  });

  e2fsprogs = package "e2fsprogs" { debs = from.e2fsprogs; copied = [ "bin/e2fsck" "bin/tune2fs" ]; };
  kmod = package "kmod" { debs = from.kmod; copied = [ "bin/kmod" ]; };
  lvm2 = package "lvm2" {
    debs = from.lvm2;
    copied = [ "bin/dmsetup" "bin/lvm" ];
    extra = "sed -i 's,[^ \"]*/systemd-run,/run/current-system/systemd/bin/systemd-run,' $out/lib/udev/rules.d/*.rules";
  };
  util-linux = package "util-linux" { debs = from.util-linux; copied = [ "bin/blkid" "bin/fsck" ]; };

  # With a few programs that Debian's busybox is built without.
  busybox = package "busybox" {
    debs = [ "busybox-static" ];
    copied = [ "bin/busybox" ];
    extra = ''
      for name in $($out/bin/busybox --list); do
        [ -e $out/bin/$name ] || ln -s busybox $out/bin/$name
      done
      cp ${programs}/usr/sbin/fsck ${programs}/usr/bin/pgrep ${programs}/usr/bin/mountpoint $out/bin/
    '';
  };

  # Libraries of the tree have no run path; what stage 1 takes along is looked for by it.
  patchelf = final.writeShellScriptBin "patchelf" ''
    told=$(${programs}/usr/bin/patchelf "$@") || exit
    if [ "$1" = --print-rpath ] && [ -z "$told" ]; then
      told=${programs}/usr/lib/x86_64-linux-gnu
    fi
    [ -z "$told" ] || echo "$told"
  '';
  # Its hook names the programs of Debian's tree.
  bintools = final.stdenv.cc;

  kmod-blacklist-ubuntu = final.writeTextDir "modprobe.conf" "## file: iwlwifi.conf\n##\n";
  kmod-debian-aliases = final.runCommand "debian-aliases.conf" { } "cp ${programs}/usr/lib/modprobe.d/aliases.conf $out";

  qemu_kvm = import (stand-in + "/pkgs/qemu.nix") { inherit (withTree) runCommand; inherit hosted; } // {
    ga = package "qemu-guest-agent" { debs = [ "qemu-guest-agent" ]; main = "qemu-ga"; };
  };
  qemu-utils = final.qemu_kvm;
  erofs-utils = package "erofs-utils" { debs = [ "erofs-utils" ]; };
}
