# The module system: collects modules, merges their options into one tree and their definitions into its values.
{ lib }:
let
  inherit (lib)
    all any attrNames concatMap elem filter foldl' genericClosure head imap1 isAttrs isFunction isOption length listToAttrs map mapAttrs
    mkOption mkOptionDefault nameValuePair optional optionalAttrs optionals pushDown discharge strongest inOrder removeAttrs reverseList
    setAttrByPath showDefs showFiles showOption tail toString types zipAttrsWith;

  unknownFile = "<unknown-file>";

  # -- modules

  # Call a module function with the arguments that it names. Each is looked up only when the module uses it.
  applyModule = key: args: module:
    if !isFunction module then module
    else
      let
        named = mapAttrs (name: _: args.${name} or (builtins.addErrorContext "while evaluating the module argument `${name}' in \"${key}\":" args.config._module.args.${name}))
          (lib.functionArgs module);
      in
      module (args // named);

  structuredAttributes = [ "_class" "_file" "key" "disabledModules" "imports" "options" "config" "meta" "freeformType" ];

  # { file, key, imports, options, config, disabled } of a module in any of the forms that may be written.
  normalise = args: parentFile: fallbackKey: module:
    let
      isPath = builtins.isPath module || builtins.isString module || (isAttrs module && module ? outPath && !(module ? imports || module ? config || module ? options));
      file = if isPath then toString module else parentFile;
      loaded = if isPath then import module else module;
      body = applyModule file args loaded;
      key = if isPath then toString module else toString (body.key or fallbackKey);
      structured = body ? config || body ? options;
      unsupported = removeAttrs body structuredAttributes;
      withFreeform = config: if body ? freeformType then lib.mkMerge [ config { _module.freeformType = body.freeformType; } ] else config;
      withMeta = config: if body ? meta then lib.mkMerge [ config { inherit (body) meta; } ] else config;
    in
    if isAttrs body && body._type or "" == "if" then
      normalise args parentFile fallbackKey { _file = file; config = body; }
    else if !isAttrs body then
      throw "Module `${key}' (${file}) is expected to be an attribute set or a function that returns one, but it is a ${builtins.typeOf body}."
    else if body ? _type && body._type != "module" && !structured && elem body._type [ "merge" "override" "order" ] then
      normalise args parentFile fallbackKey { _file = file; config = body; }
    else if body ? _type && elem body._type [ "flake" "configuration" ] then
      throw "Expected a module, but found a value of type ${builtins.toJSON body._type}, while trying to load a module into a NixOS configuration."
    else if structured && unsupported != { } then
      throw "Module `${key}' has an unsupported attribute `${head (attrNames unsupported)}'. This is caused by introducing a top-level `config' or `options' attribute. Add configuration attributes immediately on the top level instead, or move all of them (namely: ${toString (attrNames unsupported)}) into the explicit `config' attribute."
    else {
      inherit key;
      file = toString (body._file or file);
      imports = body.imports or [ ];
      disabled = body.disabledModules or [ ];
      options = body.options or { };
      config = withFreeform (withMeta (if structured then body.config or { } else removeAttrs body structuredAttributes));
    };

  # All modules that are reached through imports, each once, in the order that decides the order of list definitions.
  collect = args: modules:
    let
      entries = parent: list: imap1
        (n: module:
          let normal = normalise args parent.file "${parent.key}:anon-${toString n}" module;
          in { inherit (normal) key; module = normal; })
        list;
      closure = genericClosure {
        startSet = entries { file = unknownFile; key = ""; } modules;
        operator = entry: entries entry.module entry.module.imports;
      };
      disabledKey = x:
        if isAttrs x && x ? key then x.key
        else if builtins.isString x && !(lib.hasPrefix "/" x) then "${args.modulesPath or ""}/${x}"
        else toString x;
      disabled = map disabledKey (concatMap (entry: entry.module.disabled) closure);
    in
    if disabled == [ ] then map (entry: entry.module) closure
    else
      # A disabled module's imports go with it, so the closure is walked again without it.
      map (entry: entry.module) (filter (entry: !(elem entry.key disabled)) (genericClosure {
        startSet = filter (entry: !(elem entry.key disabled)) (entries { file = unknownFile; key = ""; } modules);
        operator = entry: filter (e: !(elem e.key disabled)) (entries entry.module entry.module.imports);
      }));

  # -- trees

  # Merge one level of declarations [{file, options}] and definitions [{file, config}] into
  # { options, config, unmatched = [{file, loc, value}] }.
  mergeLevel = prefix: declarations: definitions:
    let
      declared = zipAttrsWith (_: values: values)
        (map (d: mapAttrs (_: options: { inherit (d) file; inherit options; }) (checkTree prefix d)) declarations);
      defined = zipAttrsWith (_: values: values)
        (concatMap (d: map (mapAttrs (_: config: { inherit (d) file; inherit config; })) (checkedPushDown prefix d)) definitions);
      merged = mapAttrs (name: mergeName (prefix ++ [ name ]) (defined.${name} or [ ])) declared;
      undeclared = removeAttrs defined (attrNames declared);
    in
    {
      options = mapAttrs (_: m: m.options) merged;
      config = mapAttrs (_: m: m.config) merged;
      unmatched = concatMap (m: m.unmatched) (builtins.attrValues merged)
        ++ concatMap (name: map (d: { inherit (d) file; loc = prefix ++ [ name ]; value = d.config; }) undeclared.${name}) (attrNames undeclared);
    };

  checkTree = prefix: declaration:
    if isAttrs declaration.options then declaration.options
    else throw "An option declaration for `${showOption prefix}' in `${declaration.file}' is not an attribute set.";

  checkedPushDown = prefix: definition:
    map
      (set: if isAttrs set then set else
      throw "In module `${definition.file}', you're trying to define a value of type `${builtins.typeOf set}'\nrather than an attribute set for the option\n`${showOption prefix}'!\n\nThis usually happens if `${showOption prefix}' has option\ndefinitions inside that are not matched. Please check how to properly define\nthis option by e.g. referring to `man 5 configuration.nix'!")
      (pushDown definition.config);

  mergeName = loc: definitions: declarations:
    let
      asOptions = filter (d: isOption d.options) declarations;
      nested = filter (d: !(isOption d.options)) declarations;
    in
    if asOptions == [ ] then mergeLevel loc declarations definitions
    else if nested == [ ] then leaf loc asOptions definitions
    else if all (d: d.options.type.name or "" == "submodule" || d.options.type.name or "" == "nullOr") asOptions then
      leaf loc (asOptions ++ map (d: { inherit (d) file; options = mkOption { type = types.submoduleWith { modules = [{ _file = d.file; options = d.options; }]; }; }; }) nested) definitions
    else throw "The option `${showOption loc}' in `${(head asOptions).file}' would be a parent of the following options, but its type `${(head asOptions).options.type.description or "<no description>"}' does not support nested options.\n- option(s) with prefix `${showOption loc}' in `${(head nested).file}'";

  leaf = loc: declarations: definitions:
    let option = evalOption loc (mergeDeclarations loc declarations) (map (d: { inherit (d) file; value = d.config; }) definitions);
    in { options = option; config = option.value; unmatched = [ ]; };

  # -- options

  mergeDeclarations = loc: declarations:
    let
      join = acc: d:
        let
          bothTyped = d.options ? type && acc ? type;
          merged = acc.type.typeMerge d.options.type;
          repeated = filter (a: acc ? ${a} && d.options ? ${a}) [ "default" "example" "description" "apply" ];
        in
        if repeated != [ ] || (bothTyped && merged == null)
        then throw "The option `${showOption loc}' in `${d.file}' is already declared in ${showFiles acc.declarations}."
        else acc // d.options // optionalAttrs bothTyped { type = merged; } // { declarations = acc.declarations ++ [ d.file ]; };
    in
    { type = types.unspecified; } // foldl' join { declarations = [ ]; } declarations;

  evalOption = loc: option: definitions:
    let
      all' = definitions ++ optional (option ? default) { file = head option.declarations; value = mkOptionDefault option.default; };
      merged =
        if option.readOnly or false && length all' > 1 then
          throw "The option `${showOption loc}' is read-only, but it's set multiple times. Definition values:${showDefs definitions}"
        else mergeDefinitions loc option.type all';
      value = (option.apply or lib.id) merged.mergedValue;
      deprecated = lib.warnIf (option.type.deprecationMessage or null != null) "The type `types.${option.type.name}' of option `${showOption loc}' is deprecated.";
    in
    option // {
      _type = "option";
      inherit loc;
      value = builtins.addErrorContext "while evaluating the option `${showOption loc}':" (deprecated value);
      inherit (merged) isDefined highestPrio valueMeta;
      definitions = map (d: d.value) merged.values;
      definitionsWithLocations = merged.values;
      files = map (d: d.file) merged.values;
      options = option.options or [ ];
      __toString = _: showOption loc;
    };

  mergeDefinitions = loc: type: definitions:
    let
      discharged = concatMap (d: map (value: { inherit (d) file; inherit value; }) (builtins.addErrorContext "while evaluating definitions from `${d.file}':" (discharge d.value))) definitions;
      selected = strongest discharged;
      values = inOrder selected.values;
      isDefined = values != [ ];
      wrong = filter (d: !(type.check d.value)) values;
    in
    rec {
      inherit values isDefined;
      inherit (selected) highestPrio;
      valueMeta = { };
      mergedValue =
        if !isDefined then
          (type.emptyForUndefined or (throw "The option `${showOption loc}' was accessed but has no value defined. Try setting the option."))
        else if wrong != [ ] then
          throw "A definition for option `${showOption loc}' is not of type `${type.description}'. Definition values:${showDefs wrong}"
        else type.merge loc values;
      optionalValue = { inherit isDefined; value = mergedValue; };
    };

  # -- evaluation

  internalModule = {
    _file = "lib/modules.nix";
    key = "lib/modules.nix";
    options._module = {
      args = mkOption { type = types.lazyAttrsOf types.raw; internal = true; default = { }; description = "Additional arguments passed to each module."; };
      check = mkOption { type = types.bool; internal = true; default = true; description = "Whether to check whether all option definitions have matching declarations."; };
      freeformType = mkOption { type = types.nullOr types.optionType; internal = true; default = null; description = "The type of undeclared definitions."; };
      specialArgs = mkOption { readOnly = true; internal = true; type = types.raw; description = "Externally provided module arguments."; };
    };
  };

  complain = result: undeclared:
    let
      first = head undeclared;
      base = "The option `${showOption first.loc}' does not exist. Definition values:${showDefs [ first ]}";
      misplaced = length first.loc > 0 && result.options == { };
    in
    throw (base + (if misplaced then
      "\n\nHowever there are no options defined in `${showOption (lib.init first.loc)}'. Are you sure you've\ndeclared your options properly? This can happen if you e.g. declared your options in `types.submodule'\nunder `config' rather than `options'.\n"
    else "\n"));

  # Undeclared definitions, as one definition per file, relative to the prefix, for a freeform type.
  freeDefinitions = prefix: map (d: { inherit (d) file; value = setAttrByPath (lib.drop (length prefix) d.loc) d.value; });

  evalModules = { modules, specialArgs ? { }, prefix ? [ ], class ? null, check ? true, args ? { } }@arguments:
    let
      argumentsModule = {
        _file = "lib/modules.nix";
        key = "lib/modules.nix:arguments";
        config._module = {
          args = { inherit extendModules moduleType; } // args;
          check = lib.mkIf (!check) (lib.mkDefault false);
          specialArgs = specialArgs;
        };
      };
      moduleArgs = { inherit lib config; options = merged.options; inherit specialArgs; _class = class; _prefix = prefix; } // specialArgs;
      collected = reverseList (collect moduleArgs (modules ++ [ internalModule argumentsModule ]));
      merged = mergeLevel prefix
        (map (m: { inherit (m) file options; }) collected)
        (map (m: { inherit (m) file config; }) collected);

      free = merged.config._module.freeformType;
      freeform = (mergeDefinitions prefix free (freeDefinitions prefix merged.unmatched)).mergedValue;
      # Declared options win over what the freeform type merged beside them.
      config =
        if free == null || merged.unmatched == [ ] then (if free == null then merged.config else (free.emptyValue.value or { }) // merged.config)
        else lib.recursiveUpdateUntil (path: a: b: !(isAttrs a && isAttrs b) || lib.isDerivation b || isOption (lib.attrByPath path null merged.options)) freeform merged.config;

      undeclared = if free != null || !merged.config._module.check then [ ] else merged.unmatched;
      checked = value: if undeclared == [ ] then value else complain merged undeclared;

      extendModules = { modules ? [ ], specialArgs ? { }, prefix ? arguments.prefix or [ ] }: evalModules (arguments // {
        modules = arguments.modules ++ modules;
        specialArgs = (arguments.specialArgs or { }) // specialArgs;
        inherit prefix;
      });
      moduleType = types.submoduleWith { inherit modules specialArgs class; shorthandOnlyDefinesConfig = false; };
    in
    {
      _type = "configuration";
      options = checked (removeAttrs merged.options [ "_module" ]);
      config = checked (removeAttrs config [ "_module" ]);
      _module = checked merged.config._module;
      inherit extendModules class;
      type = moduleType;
    };

  # -- helpers for modules

  rename = { from, to, visible, warn, use, withPriority ? true, condition ? true }: { config, options, ... }:
    let
      fromOption = lib.getAttrFromPath from options;
      toOption = lib.attrByPath to (throw "Renaming error: option `${showOption to}' does not exist.") options;
      targetType = toOption.type or (types.submodule { });
    in
    {
      options = setAttrByPath from (mkOption {
        inherit visible;
        description = "Alias of {option}`${showOption to}`.";
        apply = _: use (lib.attrByPath to (throw "Renaming error: option `${showOption to}' does not exist.") config);
        type = if toOption ? type then targetType else types.anything;
      });
      config = lib.mkIf condition (lib.mkMerge [
        (optionalAttrs (options ? warnings) {
          warnings = optional (warn && fromOption.isDefined) "The option `${showOption from}' defined in ${showFiles fromOption.files} has been renamed to `${showOption to}'.";
        })
        (if withPriority then mkAliasAndWrapDefsWithPriority (setAttrByPath to) fromOption else mkAliasAndWrapDefinitions (setAttrByPath to) fromOption)
      ]);
    };

  mkAliasAndWrapDefinitions = wrap: option: lib.mkIf option.isDefined (wrap (lib.mkMerge option.definitions));
  mkAliasAndWrapDefsWithPriority = wrap: option:
    lib.mkIf option.isDefined (wrap (lib.mkMerge (map (lib.mkOverride (option.highestPrio or 100)) option.definitions)));
in
{
  inherit evalModules mergeDefinitions mkAliasAndWrapDefinitions mkAliasAndWrapDefsWithPriority applyModule;
  evalOptionValue = evalOption;
  mergeModules = prefix: modules: removeAttrs (mergeLevel prefix (map (m: { file = m._file; inherit (m) options; }) modules) (map (m: { file = m._file; inherit (m) config; }) modules)) [ "unmatched" ];
  setDefaultModuleLocation = file: module: { _file = file; imports = [ module ]; };
  importApply = path: static: { _file = path; imports = [ (import path static) ]; };
  doRename = rename;
  mkAliasDefinitions = option: mkAliasAndWrapDefinitions lib.id option;
  fixMergeModules = modules: args: evalModules { inherit modules args; check = false; };

  mkRemovedOptionModule = path: replacement: { options, ... }: {
    options = setAttrByPath path (mkOption {
      visible = false;
      apply = _: throw "The option `${showOption path}' can no longer be used since it's been removed. ${replacement}";
    });
    config.assertions =
      let option = lib.getAttrFromPath path options; in
      [{
        assertion = !option.isDefined;
        message = "The option definition `${showOption path}' in ${showFiles option.files} no longer has any effect; please remove it.\n${replacement}";
      }];
  };
  mkRenamedOptionModule = from: to: rename {
    inherit from to;
    visible = false;
    warn = true;
    use = lib.trace "Obsolete option `${showOption from}' is used. It was renamed to `${showOption to}'.";
  };
  mkAliasOptionModule = from: to: rename { inherit from to; visible = true; warn = false; use = lib.id; };
  mkAliasOptionModuleMD = from: to: rename { inherit from to; visible = true; warn = false; use = lib.id; };
  mkMergedOptionModule = from: to: merge: { config, options, ... }: {
    options = lib.foldl' lib.recursiveUpdate { } (map (path: setAttrByPath path (mkOption { visible = false; type = types.anything; default = "_mkMergedOptionModule"; })) from);
    config = lib.mkIf (any (path: lib.getAttrFromPath path config != "_mkMergedOptionModule") from) (setAttrByPath to (merge config));
  };
  mkChangedOptionModule = from: to: change: { config, options, ... }: {
    options = setAttrByPath from (mkOption { visible = false; type = types.anything; default = "_mkMergedOptionModule"; });
    config = lib.mkIf (lib.getAttrFromPath from config != "_mkMergedOptionModule") (setAttrByPath to (change config));
  };
}
