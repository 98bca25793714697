# A host with a container of its own; flake.nix says what runs in it.
{ lib, ... }:
{
  imports = [ ../modules/base.nix ];
  boot.isContainer = true;
  networking.hostName = lib.mkDefault "nested";
  containers.web = {
    autoStart = true;
    privateNetwork = true;
    privateUsers = lib.mkDefault "pick";
  };
}
