# Which option each path of a remedy belongs to on one nixpkgs, and of what type it is: [ { option; type; } ... ], `*` for a name.
{ nixpkgs, request }:
let
  asked = builtins.fromJSON (builtins.readFile request);
  lib = import (nixpkgs + "/lib");
  system = import (nixpkgs + "/nixos/lib/eval-config.nix") {
    system = "x86_64-linux";
    modules = [ ./host.nix ];
  };
  named = [ "attrsOf" "lazyAttrsOf" "listOf" "attrsWith" ];
  # Types that only add something to the one type inside.
  inner = type: if builtins.elem type.name [ "nullOr" "uniq" "unique" ] then inner type.nestedTypes.elemType else type;

  find =
    options: said: path:
    if path == [ ] then
      null
    else
      let
        name = builtins.head path;
        rest = builtins.tail path;
        here = said ++ [ name ];
        entry = options.${name} or null;
      in
      if entry == null then
        null
      else if lib.isOption entry then
        ofOption entry here rest
      else
        find entry here rest;

  ofOption =
    option: here: rest:
    let
      leaf = {
        option = lib.concatStringsSep "." here;
        type = option.type.description;
      };
      type = inner option.type;
      hasName = builtins.elem type.name named;
      sub = removeAttrs (type.getSubOptions [ ]) [ "_module" "_freeformOptions" ];
      into = if hasName then builtins.tail rest else rest;
      below = if hasName then here ++ [ "*" ] else here;
      deeper = if rest == [ ] || sub == { } then null else find sub below into;
    in
    if deeper == null then leaf else deeper;

  content = file: (import file) {
    inherit (system) config options;
    inherit (system._module.args) pkgs;
    inherit lib;
  };
  leaves =
    path: value:
    if builtins.isAttrs value && !(value ? _type || value ? outPath || builtins.length (builtins.attrNames value) > 30) && value != { } then
      builtins.concatLists (builtins.attrValues (builtins.mapAttrs (name: leaves (path ++ [ name ])) value))
    else
      [ path ];
in
{
  release = system.config.system.nixos.release;
  rows = map (file: map (path: find system.options [ ] path) (leaves [ ] (content file))) asked.files;
}
