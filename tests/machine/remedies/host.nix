# A plain server with one of each thing that remedies name, and nothing hardened.
{ lib, pkgs, ... }:
{
  system.stateVersion = "24.05";
  # Its compiler takes more of a tree than a checkout of the module system need have.
  nixpkgs.overlays = [ (_: prev: { shellcheck-minimal = prev.hello // { compiler = prev.hello; }; }) ];
  networking.hostName = lib.mkOverride 900 "plain";
  networking.wireguard.interfaces.wg0 = { ips = [ "10.9.0.1/24" ]; privateKeyFile = lib.mkOverride 900 "/var/lib/wg0"; };
  boot.loader.systemd-boot.enable = true;
  fileSystems = {
    "/" = { device = lib.mkOverride 900 "/dev/vda2"; fsType = "ext4"; };
    "/boot" = { device = "/dev/vda1"; fsType = "vfat"; };
    "/home" = { device = "/dev/vda3"; fsType = "ext4"; };
    "/var/log" = { device = "/dev/vda4"; fsType = "ext4"; };
  };
  swapDevices = [ { device = "/dev/vda5"; } ];
  systemd.services.app = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  users.users.alice = { isNormalUser = true; extraGroups = [ "wheel" ]; openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAA alice" ]; };
  users.users.daemon1 = { isSystemUser = true; group = "daemon1"; useDefaultShell = true; };
  users.groups.daemon1 = { };
  containers.box.config.system.stateVersion = "24.05";
  virtualisation.oci-containers = { backend = lib.mkOverride 900 "docker"; containers.web = { image = lib.mkOverride 900 "redis:7"; ports = lib.mkOverride 900 [ "6379:6379" ]; }; };
  services = {
    openssh.enable = true;
    nginx = { enable = true; virtualHosts."www.example.org".root = "/var/empty"; };
    postgresql.enable = true;
    nats.enable = true;
    qdrant.enable = true;
    ollama.enable = true;
    resolved.enable = true;
    timesyncd.enable = true;
    journald.storage = lib.mkOverride 900 "volatile";
  };
  services.prometheus.exporters.node.enable = true;
  services.prometheus.exporters.nats.enable = true;
  zramSwap = { enable = true; algorithm = lib.mkOverride 900 "lz4"; priority = lib.mkOverride 900 1; };
  networking.firewall.checkReversePath = lib.mkOverride 900 false;
  nix.settings = {
    trusted-users = lib.mkOverride 900 [ "root" "@wheel" ];
    allowed-users = lib.mkOverride 900 [ "*" ];
    require-sigs = lib.mkOverride 900 false;
    sandbox = lib.mkOverride 900 false;
    substituters = lib.mkOverride 900 [ "https://cache.example.org" ];
  };
}
