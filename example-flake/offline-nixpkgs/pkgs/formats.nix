# Files in common formats, from Nix values.
{ lib, pkgs }:
let
  inherit (lib) types;
  value = types.anything;
in
{
  json = _: { type = value; generate = name: content: pkgs.writeText name (builtins.toJSON content); };
  yaml = _: { type = value; generate = name: content: pkgs.writeText name (builtins.toJSON content); };
  ini = arguments: { type = types.attrsOf (types.attrsOf value); generate = name: content: pkgs.writeText name (lib.generators.toINI arguments content); };
  iniWithGlobalSection = _: { type = value; generate = name: content: pkgs.writeText name (lib.generators.toINIWithGlobalSection { } content); };
  systemd = _: { type = types.attrsOf (types.attrsOf value); generate = name: content: pkgs.writeText name (lib.generators.toINI { listsAsDuplicateKeys = true; } content); };
  keyValue = arguments: { type = types.attrsOf value; generate = name: content: pkgs.writeText name (lib.generators.toKeyValue arguments content); };
}
