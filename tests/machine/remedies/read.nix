# What each module text sets, without nixpkgs: name to [ [ path value ] ... ]. A package is "<package>", what depends on the host "<unknown>".
{ request }:
let
  files = builtins.fromJSON (builtins.readFile request);
  package = {
    outPath = "<package>";
    lib = "<package>";
  };
  forced = content: {
    _type = "override";
    inherit content;
  };
  lib = {
    mkForce = forced;
    mkAfter = forced;
    mkOverride = _: forced;
    getExe = _: "<package>";
    getName = p: p.name;
    genAttrs =
      names: of:
      builtins.listToAttrs (
        map (name: {
          inherit name;
          value = of name;
        }) names
      );
    gvariant.mkUint32 = n: n;
  };
  pkgs = {
    writeText = _: _: package;
    runCommand = _: _: _: package;
    writeShellApplication = _: package;
    linuxPackages = package;
    linux-pam = package;
    libpwquality = package;
    ollama = package;
    ollama-cpu = package;
    cacert = package;
    hello = package;
    jq = package;
    zsh = package;
  };
  rules = {
    auth.deny.order = 0;
    account.unix.order = 0;
  };
  config = {
    nix.package = package;
    networking.hostName = "plain";
    environment.etc."nix/nix.conf".source = package;
    security.pam.services = {
      login = { inherit rules; };
      sshd = { inherit rules; };
    };
  };
  plain =
    value:
    if builtins.isAttrs value && value ? outPath then
      value.outPath
    else if builtins.isAttrs value && value._type or "" == "override" then
      plain value.content
    else if builtins.isAttrs value then
      builtins.mapAttrs (_: plain) value
    else if builtins.isList value then
      map plain value
    else if builtins.isFunction value then
      "<function>"
    else
      value;
  leaves =
    path: value:
    if builtins.isAttrs value && !(value ? _type || value ? outPath) && value != { } then
      builtins.concatLists (builtins.attrValues (builtins.mapAttrs (name: leaves (path ++ [ name ])) value))
    else
      [ [ path (plain value) ] ];
in
builtins.mapAttrs (_: file: leaves [ ] ((import file) { inherit config lib pkgs; })) files
