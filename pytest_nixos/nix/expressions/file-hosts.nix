# The hosts of a Nix file, as a flake's nixosConfigurations are. Applied to what stands in the file: a set of hosts, one host, a NixOS
# module (configuration.nix), or a function that gives one of them.
#
# request: { file; lone, the name of the host where the file is one; wanted, the attribute path of a host, [ ] for all; name, what a
# wanted one is called; asKind, whether kind is the answer; }
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
  needed =
    function:
    let
      arguments = builtins.functionArgs function;
    in
    builtins.filter (name: !arguments.${name}) (builtins.attrNames arguments);
  needsArguments = function: needed function != [ ];

  # What lib.evalModules returns is a host where it is NixOS: as eval-config.nix marks it, else as its options say, which takes reading
  # all its modules.
  isHost =
    entry:
    builtins.isAttrs entry
    && entry ? options
    && (
      if builtins.isString (entry.class or null) then
        entry.class == "nixos"
      else if entry ? extendModules then
        entry ? extraArgs || entry ? options.system.build
      else
        entry ? config.system.build.toplevel
    );

  # A NixOS module takes at least one of these, or no argument by name.
  ofModules = [
    "config"
    "lib"
    "modulesPath"
    "options"
    "pkgs"
    "specialArgs"
    "utils"
  ];
  isModule =
    function:
    !(needsArguments function) || builtins.any (name: builtins.elem name ofModules) (needed function);

  refused = about: names: throw "pytest-nixos: ${about}: ${builtins.concatStringsSep ", " names}";

  content =
    let
      found = called value;
    in
    if builtins.isFunction found && !(isModule found) then
      refused "arguments without a default" (needed found)
    else
      found;

  # Names of hosts one level further down, as -A takes them.
  below = builtins.concatMap (
    name:
    let
      set = called content.${name};
      isOne = host: (builtins.tryEval (isHost (called set.${host}))).value;
      found = builtins.tryEval (
        if builtins.isAttrs set then builtins.filter isOne (builtins.attrNames set) else [ ]
      );
    in
    if found.success then map (host: "${quoted name}.${quoted host}") found.value else [ ]
  ) (builtins.attrNames content);
  quoted = name: if builtins.match "[a-zA-Z_][a-zA-Z0-9_'-]*" name != null then name else "\"${name}\"";

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

  found = builtins.filter mayBeHost (builtins.attrNames content);

  kind =
    if builtins.isFunction content then
      "module"
    else if isHost content then
      "host"
    else if builtins.isAttrs content && found == [ ] && baseNameOf request.file != "default.nix" then
      "module"
    else
      "set";

  all =
    if builtins.isAttrs content && kind != "host" && found == [ ] && request.wanted == [ ] && below != [ ] then
      refused "hosts further down" below
    else if kind == "module" then
      module
    else if kind == "host" then
      { ${request.lone} = content; }
    else if !(builtins.isAttrs content) then
      { }
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
if request.asKind then
  kind
else if request.wanted == [ ] || wanted == missing then
  all
else
  { ${request.name} = wanted; }
