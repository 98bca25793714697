# The hosts of a Nix file, as a flake's nixosConfigurations are. Applied to what stands in the file: a set of hosts, one host, a NixOS
# module (configuration.nix), or a function that gives one of them.
#
# request: { file; lone, the name of the host where the file is one; wanted, the attribute path of a host, [ ] for all; name, what a
# wanted one is called; }
{ request }:
value:
let
  # As nix-build -A does.
  called =
    given:
    if builtins.isFunction given then
      (if needsArguments given then given else given { })
    else
      given;
  needsArguments =
    function: builtins.any (hasDefault: !hasDefault) (builtins.attrValues (builtins.functionArgs function));

  isHost =
    entry:
    builtins.isAttrs entry
    && (entry ? extendModules || (entry ? options && entry ? config.system.build.toplevel));

  content = called value;

  # One that throws is told as a host that does not evaluate, and never left out.
  mayBeHost =
    name:
    let
      tried = builtins.tryEval (isHost (called content.${name}));
    in
    !tried.success || tried.value;

  module = {
    ${request.lone} = import <nixpkgs/nixos/lib/eval-config.nix> { modules = [ (/. + request.file) ]; };
  };

  all =
    if builtins.isFunction content then
      module
    else if isHost content then
      { ${request.lone} = content; }
    else if !(builtins.isAttrs content) then
      { }
    else
      let
        found = builtins.filter mayBeHost (builtins.attrNames content);
      in
      if found == [ ] && baseNameOf request.file != "default.nix" then
        module
      else
        builtins.listToAttrs (
          map (name: {
            inherit name;
            value = called content.${name};
          }) found
        );

  missing = "";
  at =
    entry: path:
    if path == [ ] then
      entry
    else if builtins.isAttrs entry && entry ? ${builtins.head path} then
      at (called entry.${builtins.head path}) (builtins.tail path)
    else
      missing;
  wanted = if builtins.isAttrs content then at content request.wanted else missing;
in
if request.wanted == [ ] || wanted == missing then all else { ${request.name} = wanted; }
