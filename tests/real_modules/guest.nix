# What a host needs so that its programs can be Debian's: folders that are compiled into them, and nothing that cannot be built here.
{ lib, pkgs, ... }:
let
  programs = pkgs.debian.outPath;
  # Where Debian's programs look for their own parts; those of nixpkgs are built to look into the store.
  folders = {
    "lib/systemd" = "${pkgs.systemd}/compiled-in";
    "lib/udev" = "${pkgs.systemd}/compiled-in-udev";
    "lib/modules" = "/run/booted-system/kernel-modules/lib/modules";
    "lib/x86_64-linux-gnu/security" = "${programs}/usr/lib/x86_64-linux-gnu/security";
    # systemd looks for programs without a path there.
    "bin/systemd-tmpfiles" = "${pkgs.systemd}/bin/systemd-tmpfiles";
    "bin/mount" = "${pkgs.util-linux}/bin/mount";
    "bin/umount" = "${pkgs.util-linux}/bin/umount";
    "sbin/swapon" = "${pkgs.util-linux}/bin/swapon";
    "sbin/swapoff" = "${pkgs.util-linux}/bin/swapoff";
    "sbin/fsck" = "${pkgs.util-linux}/bin/fsck";
    "sbin/sulogin" = "${pkgs.util-linux}/bin/sulogin";
    "sbin/unix_chkpwd" = "/run/wrappers/bin/unix_chkpwd";
    "lib/openssh" = "${programs}/usr/lib/openssh";
    "libexec/sudo" = "${programs}/usr/libexec/sudo";
    "share/dbus-1" = "${programs}/usr/share/dbus-1";
  };
in
{
  documentation.enable = lib.mkDefault false;
  documentation.nixos.enable = lib.mkDefault false;
  system.disableInstallerTools = lib.mkDefault true;
  # Where Debian's sshd works without rights; that of nixpkgs is built for /var/empty.
  systemd.tmpfiles.rules = [ "d /run/sshd 0755 root root -" ];
  # Debian sets its consoles up by other means.
  console.enable = lib.mkDefault false;
  systemd.suppressedSystemUnits = [ "systemd-vconsole-setup.service" ];
  # Neither is part of Debian 13: the record of logins that ends in 2038.
  systemd.services.systemd-update-utmp.enable = false;
  security.pam.services.login.updateWtmp = lib.mkForce false;
  # Copies programs with a tool that Debian has not.
  systemd.shutdownRamfs.enable = lib.mkDefault false;
  # Its rules of udev call programs by names that only its own package can explain.
  boot.bcache.enable = lib.mkDefault false;
  # Debian's udev opens it when it first loads a module.
  boot.initrd.extraUtilsCommands = "cp -L ${programs}/usr/lib/x86_64-linux-gnu/libkmod.so.2 $out/lib/";
  # A VM starts its kernel without a boot loader.
  boot.loader.grub.enable = lib.mkDefault false;
  environment.stub-ld.enable = lib.mkDefault false;
  # Loads the rules where they are built, into a kernel that is a library.
  networking.nftables.checkRuleset = lib.mkDefault false;
  system.activationScripts.debian = lib.concatStrings (lib.mapAttrsToList
    (folder: target: ''
      mkdir -p /usr/${dirOf folder}
      ln -sfn ${target} /usr/${folder}
    '')
    folders) + ''
    mkdir -p /lib
    ln -sfn /usr/lib/modules /lib/modules
  '';
}
