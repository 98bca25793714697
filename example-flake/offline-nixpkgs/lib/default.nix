# The stand-in's library. Names and meanings are those of nixpkgs' `lib`; the code is this project's own.
let
  basics = import ./basics.nix;
  lib = basics // properties // options // modules // extra // {
    inherit types generators;
    inherit (types) mkOptionType;
    options = options;
    modules = modules // properties;
    strings = basics;
    lists = basics;
    attrsets = basics;
    trivial = basics // { inherit (extra) version release; };
    customisation = basics;
    functionArgs = extra.functionArgs';
    meta = { inherit (basics) getExe getExe'; };
  };
  properties = import ./properties.nix { inherit lib; };
  options = import ./options.nix { inherit lib; };
  modules = import ./modules.nix { inherit lib; };
  types = import ./types.nix { inherit lib; };
  generators = import ./generators.nix { inherit lib; };
  extra = import ./extra.nix { inherit lib; };
in
lib
