# One guard against running out of memory instead of two.
{ lib, ... }:
{
  systemd.oomd.enable = lib.mkDefault false;
  services.earlyoom = { enable = true; freeMemThreshold = 5; };
}
