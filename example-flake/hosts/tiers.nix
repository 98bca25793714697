# A container between two networks: the notes are for the applications' network only, the models for nobody else.
{ lib, ... }:
{
  imports = [
    ../modules/base.nix
    ../modules/notes.nix
    ../modules/ollama.nix
  ];
  boot.isContainer = true;
  networking.hostName = lib.mkDefault "tiers";
  networking.nftables.enable = true;
  networking.firewall.interfaces.app.allowedTCPPorts = [ 8080 ];
}
