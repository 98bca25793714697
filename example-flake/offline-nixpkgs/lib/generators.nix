# Text formats.
{ lib }:
let
  inherit (lib) attrNames concatMap concatStrings concatStringsSep escape isAttrs isBool isFunction isInt isList isString map mapAttrsToList toString;
in
rec {
  mkValueStringDefault = { }: value:
    if isString value then value
    else if value == true then "true"
    else if value == false then "false"
    else if value == null then "null"
    else if isInt value || lib.isFloat value || lib.isStringLike value then toString value
    else throw "generators.mkValueStringDefault: ${builtins.typeOf value} is not supported";
  mkKeyValueDefault = { mkValueString ? mkValueStringDefault { } }: separator: key: value: "${escape [ separator ] key}${separator}${mkValueString value}";

  toKeyValue = { mkKeyValue ? mkKeyValueDefault { } "=", listsAsDuplicateKeys ? false, indent ? "" }: set:
    let entry = key: value: if listsAsDuplicateKeys && isList value then map (line key) value else [ (line key value) ];
        line = key: value: "${indent}${mkKeyValue key value}\n";
    in concatStrings (concatMap (key: entry key set.${key}) (attrNames set));

  toINI = { mkSectionName ? (name: escape [ "[" "]" ] name), mkKeyValue ? mkKeyValueDefault { } "=", listsAsDuplicateKeys ? false }: sections:
    concatStringsSep "\n" (mapAttrsToList (name: body: "[${mkSectionName name}]\n" + toKeyValue { inherit mkKeyValue listsAsDuplicateKeys; } body) sections);
  toINIWithGlobalSection = arguments: { globalSection, sections ? { } }:
    (if globalSection == { } then "" else toKeyValue (removeAttrs arguments [ "mkSectionName" ]) globalSection + "\n") + toINI arguments sections;

  toJSON = { }: builtins.toJSON;
  toYAML = toJSON;

  # Readable Nix text of a value, for messages.
  toPretty = { multiline ? true, depthLimit ? null, allowPrettyValues ? false, indent ? "" }:
    let
      go = depth: indent: value:
        let
          inner = indent + "  ";
          separator = if multiline then "\n${inner}" else " ";
          end = if multiline then "\n${indent}" else " ";
        in
        if depthLimit != null && depth > depthLimit then "<unevaluated>"
        else if isInt value || lib.isFloat value then toString value
        else if isBool value then lib.boolToString value
        else if value == null then "null"
        else if isString value then builtins.toJSON value
        else if builtins.isPath value then toString value
        else if isFunction value then "<function>"
        else if isList value then (if value == [ ] then "[ ]" else "[${separator}${concatStringsSep separator (map (go (depth + 1) inner) value)}${end}]")
        else if value.type or null == "derivation" then "<derivation ${value.drvPath or value.outPath or "?"}>"
        else if value == { } then "{ }"
        else "{${separator}${concatStringsSep separator (mapAttrsToList (name: x: "${lib.identifier name} = ${go (depth + 1) inner x};") value)}${end}}";
    in
    go 0 indent;
}
