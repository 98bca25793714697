# Containers for Proxmox VE: imported by hosts that want it, as in nixpkgs.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.proxmoxLXC;
  toplevel = config.system.build.toplevel;
  closure = pkgs.closureInfo { rootPaths = [ toplevel ]; };
  flag = default: mkOption { type = types.bool; inherit default; };
in
{
  options.proxmoxLXC = {
    enable = flag true;
    privileged = flag false;
    manageNetwork = flag false;
    manageHostName = flag false;
  };

  config = lib.mkIf cfg.enable {
    boot.isContainer = true;
    networking = lib.mkIf (!cfg.manageNetwork) {
      useDHCP = false;
      useHostResolvConf = false;
      useNetworkd = true;
      hostName = lib.mkIf (!cfg.manageHostName) (lib.mkForce "");
    };

    # Init first, so that a reader finds it without unpacking the store.
    system.build.tarball = pkgs.runCommand "tarball" { } ''
      mkdir -p root/sbin root/root root/etc/systemd/network $out/tarball
      ln -s ${toplevel}/init root/sbin/init
      cp ${closure}/registration root/nix-path-registration
      target=$out/tarball/nixos-system-${config.nixpkgs.hostPlatform.system or "x86_64-linux"}.tar.xz
      sed 's|^/||' ${closure}/store-paths > paths
      tree tar --create --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner \
        --directory=$PWD/root --file=- . --directory=/ --files-from=$PWD/paths | tree xz -0 -T2 > $target
    '';
  };
}
