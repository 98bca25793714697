{ lib, ... }:
{
  options.meta = {
    maintainers = lib.mkOption { type = lib.types.listOf lib.types.unspecified; internal = true; default = [ ]; };
    doc = lib.mkOption { type = lib.types.unspecified; internal = true; default = null; };
    buildDocsInSandbox = lib.mkOption { type = lib.types.bool; internal = true; default = true; };
  };
}
