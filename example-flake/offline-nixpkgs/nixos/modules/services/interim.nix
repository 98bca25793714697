{ lib, ... }:
{
  options.services.resolved.enable = lib.mkOption { type = lib.types.bool; default = false; };
  options.services.timesyncd.enable = lib.mkOption { type = lib.types.bool; default = true; };
  options.services.openssh.startWhenNeeded = lib.mkOption { type = lib.types.bool; default = false; };
}
