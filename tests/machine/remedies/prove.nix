# Applies each remedy to the plain host: { nixpkgs, request } where request is a JSON file of
# { violations = [ { path; value; } ]; cases = [ { name; files = [ module ... ]; options = [ path ... ]; } ]; files = [ name ... ]; }.
{ nixpkgs, safe, request }:
let
  asked = builtins.fromJSON (builtins.readFile request);
  reader = import safe;
  evalConfig = import (nixpkgs + "/nixos/lib/eval-config.nix");
  lib = import (nixpkgs + "/lib");
  # Weaker than what a host says, stronger than what a module of nixpkgs proposes.
  violation = { path, value }: lib.setAttrByPath path (lib.mkOverride 900 value);
  plain = evalConfig {
    system = "x86_64-linux";
    modules = [ ./host.nix ] ++ map violation asked.violations;
  };

  leaves =
    path: value:
    if builtins.isAttrs value && !(value ? _type || value ? outPath || builtins.length (builtins.attrNames value) > 30) && value != { } then
      builtins.concatLists (builtins.attrValues (builtins.mapAttrs (name: leaves (path ++ [ name ])) value))
    else
      [ path ];

  content = system: file: (import file) {
    inherit (system) config options;
    inherit (system._module.args) pkgs;
    inherit lib;
  };

  etc =
    system: name:
    let
      entry = system.config.environment.etc.${name} or null;
      read = builtins.tryEval (
        if entry == null then
          null
        else if entry.text != null then
          entry.text
        else
          entry.source.text or null
      );
    in
    if read.success && read.value != null then builtins.unsafeDiscardStringContext read.value else null;

  view =
    system: options:
    let
      inherit (system) config;
      one = reader.option { inherit (system) config options; };
      text = value: builtins.unsafeDiscardStringContext (toString value);
    in
    {
      options = map one options;
      etc = lib.genAttrs asked.files (etc system);
      pam = lib.genAttrs [ "login" "sshd" "su" "sudo" "passwd" ] (
        name: if config.security.pam.services ? ${name} then text config.security.pam.services.${name}.text else null
      );
      loginDefs = lib.mapAttrs (_: text) (lib.filterAttrs (_: v: v != null) config.security.loginDefs.settings);
      rules = config.security.audit.rules;
      modprobe = config.boot.extraModprobeConfig;
      ollama = lib.mapAttrs (_: text) config.systemd.services.ollama.environment;
      nix = (one [ "nix" "settings" ]).value;
    };

  prove =
    case:
    let
      fixed = plain.extendModules { modules = case.files; };
      # A module that names an option that is not there throws here.
      exists = builtins.tryEval (builtins.seq fixed.config.networking.hostName true);
      paths = builtins.concatLists (map (file: leaves [ ] (content fixed file)) case.files);
      states = map (path: { inherit path; inherit (reader.option { inherit (fixed) config options; } path) state; }) paths;
      failed = builtins.filter (a: !a.assertion) fixed.config.assertions;
      unit = builtins.tryEval (builtins.stringLength fixed.config.systemd.units."app.service".text > 0);
      told = builtins.filter (w: !(builtins.elem w plain.config.warnings)) fixed.config.warnings;
    in
    if !exists.success then
      { inherit (case) name; problem = "names an option that is not there, or one in two ways"; }
    else
      {
        inherit (case) name;
        problem =
          let
            unread = map (s: lib.concatStringsSep "." s.path) (builtins.filter (s: s.state == "unreadable") states);
          in
          if unread != [ ] then
            "cannot be evaluated: ${lib.concatStringsSep ", " unread}"
          else if failed != [ ] then
            "fails an assertion: ${(builtins.head failed).message}"
          else if told != [ ] then
            "warns: ${builtins.head told}"
          else if !unit.success then
            "breaks the unit"
          else
            null;
        seen = view fixed case.options;
      };
in
{
  plain = if asked.cases == [ ] then view plain asked.options else null;
  release = plain.config.system.nixos.release;
  # A conflict of two definitions throws wherever it is met first.
  cases = map (
    case:
    let
      result = prove case;
      forced = builtins.tryEval (builtins.deepSeq result result);
    in
    if forced.success then
      forced.value
    else
      {
        inherit (case) name;
        problem = "conflicts with what the host or a module says";
      }
  ) asked.cases;
}
