# A container that keeps the controls of the profile `twins` (../standards): one or more of every kind that a container can show.
{ lib, options, ... }:
{
  imports = [
    ../modules/base.nix
    ../modules/network-sysctl.nix
    ../modules/notes.nix
    ../modules/ssh.nix
    ../modules/ollama.nix
  ];
  boot.isContainer = true;
  networking.hostName = lib.mkDefault "catalogue-good";
  networking.nftables.enable = true;
  networking.firewall.checkReversePath = lib.mkDefault true;
  networking.firewall.allowedTCPPorts = [ 8080 ];
  networking.firewall.allowedUDPPorts = [ 8081 ];

  # An address that stays, whatever network the container is in.
  systemd.network.enable = true;
  services.resolved.enable = true;
  services.resolved.dnssec = "allow-downgrade";
  networking.useDHCP = false; # the container has the address that its starter gives it
  systemd.network.networks."10-lo" = {
    matchConfig.Name = "lo";
    address = [ "127.0.0.2/8" ];
    networkConfig.KeepConfiguration = "static";
  };

  # NixOS lets an account without a password log in at the console.
  security.pam.services.login.allowNullPassword = lib.mkForce false;
  systemd.coredump.extraConfig = "Storage=none";

  security.doas.enable = true;
  security.polkit.enable = true;

  # Without the job that fetches models: NixOS gives it no sandbox.
  services.ollama = lib.optionalAttrs (options.services.ollama ? loadModels) { loadModels = lib.mkForce [ ]; };

  systemd.tmpfiles.rules = [
    "d /run/secrets 0751 root root -"
    "f /run/secrets/token 0400 root root - token"
  ];

  services.journald.storage = "persistent";
  services.journald.extraConfig = "SystemMaxUse=200M\nMaxRetentionSec=1month";

  nix.channel.enable = lib.mkDefault false;
  nix.optimise.automatic = true;

  services.nats = {
    enable = true;
    serverName = lib.mkDefault "catalogue-good";
    settings.host = "127.0.0.1";
    settings.http = lib.mkDefault "127.0.0.1:8222";
  };
}
