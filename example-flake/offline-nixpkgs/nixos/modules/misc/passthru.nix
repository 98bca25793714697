# A place of the host's own, for anything that no option holds.
{ lib, ... }:
{
  options.passthru = lib.mkOption {
    visible = false;
    description = "Anything that a host says beside its options.";
  };
}
