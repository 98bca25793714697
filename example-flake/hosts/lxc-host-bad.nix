# The twin of lxc-host.
{ lib, pkgs, ... }:
{
  imports = [ ./lxc-host.nix ];
  networking.hostName = "lxc-host-bad";
  # breaks: LXC-001 (what comes out is no archive)
  system.build.tarball = lib.mkForce (pkgs.runCommand "tarball" { } "mkdir -p $out/tarball; echo nothing > $out/tarball/nixos-system-x86_64-linux.tar.xz");
}
