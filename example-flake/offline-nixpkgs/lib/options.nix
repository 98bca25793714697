# Declaring options, and showing them in messages.
{ lib }:
let
  inherit (lib) concatMapStringsSep concatStrings elem escapeNixString isAttrs isString map match replaceStrings splitString stringLength take;
in
rec {
  isOption = x: isAttrs x && x._type or "" == "option";
  isType = type: x: isAttrs x && x._type or "" == type;
  setType = type: value: value // { _type = type; };

  mkOption = attributes: attributes // { _type = "option"; };
  mkEnableOption = name: mkOption {
    default = false;
    example = true;
    description = if isAttrs name then name else "Whether to enable ${name}.";
    type = lib.types.bool;
  };
  mkPackageOption = pkgs: name: { default ? name, nullable ? false, example ? null, extraDescription ? "", pkgsText ? "pkgs" }:
    let path = if lib.isList default then default else [ default ]; in
    mkOption ({
      type = (if nullable then lib.types.nullOr else lib.id) lib.types.package;
      description = "The ${if lib.isList name then lib.last name else name} package to use. ${extraDescription}";
    } // lib.optionalAttrs (default != null) {
      default = lib.attrByPath path (throw "${lib.concatStringsSep "." path} cannot be found in ${pkgsText}") pkgs;
      defaultText = literalExpression "${pkgsText}.${lib.concatStringsSep "." path}";
    });
  mkPackageOptionMD = mkPackageOption;
  mkSinkUndeclaredOptions = attributes: mkOption ({ internal = true; visible = false; default = false; } // attributes);

  literalExpression = text: { _type = "literalExpression"; inherit text; };
  literalExample = literalExpression;
  literalMD = text: { _type = "literalMD"; inherit text; };

  identifier = part:
    if part == "*" || match "[a-zA-Z_][a-zA-Z0-9_'-]*" part != null || match "<.*>" part != null || lib.hasPrefix "[definition " part
    then part else escapeNixString part;
  showOption = loc: lib.concatStringsSep "." (map identifier loc);
  showOptionWithDefLocs = option: "${showOption option.loc}, with values defined in:\n${concatStrings (map (file: "  - ${file}\n") option.files)}";
  showFiles = concatMapStringsSep " and " (file: "`${file}'");

  # A short rendering of a value for messages; anything that cannot be evaluated is left out.
  showValue = value:
    let
      text = builtins.tryEval (lib.generators.toPretty { multiline = true; depthLimit = 10; } value);
      lines = splitString "\n" text.value;
    in
    if !text.success then "" else if lib.length lines == 1 then ": ${text.value}" else ":\n    ${lib.concatStringsSep "\n    " (take 5 lines)}${lib.optionalString (lib.length lines > 5) "\n    ..."}";
  showDefs = lib.concatMapStrings (definition: "\n- In `${definition.file}'${showValue definition.value}");

  getValues = map (definition: definition.value);
  getFiles = map (definition: definition.file);

  mergeOneOption = mergeUniqueOption { message = ""; };
  mergeUniqueOption = { message, merge ? null }: loc: definitions:
    if lib.length definitions == 1 then (if merge == null then (lib.head definitions).value else merge loc definitions)
    else throw "The option `${showOption loc}' is defined multiple times while it's expected to be unique.\n${message}\nDefinition values:${showDefs definitions}\nUse `lib.mkForce value` or `lib.mkDefault value` to change the priority on any of these definitions.";
  mergeEqualOption = loc: definitions:
    let first = lib.head definitions; in
    if lib.all (definition: definition.value == first.value) definitions then first.value
    else throw "The option `${showOption loc}' has conflicting definition values:${showDefs definitions}\nUse `lib.mkForce value` or `lib.mkDefault value` to change the priority on any of these definitions.";
  mergeDefaultOption = loc: definitions:
    let values = getValues definitions; in
    if lib.length values == 1 then lib.head values
    else if lib.all lib.isFunction values then (x: mergeDefaultOption loc (map (d: d // { value = d.value x; }) definitions))
    else if lib.all lib.isList values then lib.concatLists values
    else if lib.all isAttrs values then lib.foldl' (a: b: a // b) { } values
    else if lib.all lib.isBool values then lib.any lib.id values
    else if lib.all isString values then concatStrings values
    else throw "Cannot merge definitions of `${showOption loc}'. Definition values:${showDefs definitions}";

  # The flat list of an option tree, for documentation and for tools.
  optionAttrSetToDocList = options:
    lib.concatMap (option: [ { name = showOption option.loc; inherit (option) loc; declarations = option.declarations; description = option.description or null; internal = option.internal or false; visible = option.visible or true; readOnly = option.readOnly or false; type = option.type.description or "unspecified"; } ]) (lib.collect isOption options);
}
