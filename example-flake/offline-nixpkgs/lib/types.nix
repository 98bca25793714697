# Option types: what a definition may be, and how several definitions become one value.
{ lib }:
let
  inherit (lib)
    all any attrNames concatLists concatMap elem elemAt filter head imap1 isAttrs isBool isFloat isFunction isInt isList isString length map
    mapAttrs match mergeDefinitions mergeEqualOption mergeOneOption mergeDefaultOption pushDown removeAttrs showOption toString
    zipAttrsWith;

  mkOptionType =
    { name
    , description ? name
    , descriptionClass ? null
    , check ? (_: true)
    , merge ? mergeDefaultOption
    , emptyValue ? { }
    , getSubOptions ? (_: { })
    , getSubModules ? null
    , substSubModules ? (_: null)
    , typeMerge ? null
    , functor ? { }
    , nestedTypes ? { }
    , deprecationMessage ? null
    }:
    let
      self = {
        _type = "option-type";
        inherit name description descriptionClass check merge emptyValue getSubOptions getSubModules substSubModules nestedTypes deprecationMessage;
        functor = { inherit name; type = self; payload = null; wrapped = null; } // functor;
        # The type of an option that is declared with both types, or null when they do not go together.
        typeMerge = if typeMerge != null then typeMerge else other: if other.name == name then self else null;
      };
    in
    self;

  # A type with one inner type.
  wrapping = make: inner: attributes: mkOptionType ({
    nestedTypes.elemType = inner;
    inherit (inner) getSubModules;
    substSubModules = modules: make (inner.substSubModules modules);
    typeMerge = other:
      let merged = inner.typeMerge other.nestedTypes.elemType; in
      if other.name != attributes.name || merged == null then null else make merged;
    functor.wrapped = inner;
  } // attributes);

  simple = name: description: check: mkOptionType { inherit name description check; merge = mergeEqualOption; };

  between = low: high:
    lib.throwIf (low > high) "ints.between: lowest must be smaller than highest"
      ((refine types.int (x: x >= low && x <= high)) // { name = "intBetween"; description = "integer between ${toString low} and ${toString high} (both inclusive)"; });
  refine = type: predicate: type // { check = x: type.check x && predicate x; };
  unsigned = bits: high: between 0 high // { name = "unsignedInt${toString bits}"; description = "${toString bits} bit unsigned integer; between 0 and ${toString high} (both inclusive)"; };

  concatenated = name: separator: mkOptionType {
    inherit name;
    description = if separator == "" then "string" else "strings concatenated with ${builtins.toJSON separator}";
    check = isString;
    merge = _: definitions: lib.concatStringsSep separator (map (d: d.value) definitions);
    typeMerge = other: if other.name == name then concatenated name separator else null;
  };

  # Definitions of an attribute set, as definitions for each name.
  byName = definitions: zipAttrsWith (_: values: values)
    (concatMap (d: map (mapAttrs (_: value: { inherit (d) file; inherit value; })) (pushDown d.value)) definitions);

  types = rec {
    inherit mkOptionType;
    isType = lib.isType;
    setType = lib.setType;

    raw = mkOptionType { name = "raw"; description = "raw value"; merge = mergeOneOption; };
    optionType = mkOptionType {
      name = "optionType";
      check = x: x._type or "" == "option-type";
      merge = _: definitions: lib.foldl' (a: b: a.typeMerge b) (head definitions).value (lib.tail (map (d: d.value) definitions));
    };
    unspecified = mkOptionType { name = "unspecified"; description = "unspecified value"; };
    anything = mkOptionType {
      name = "anything";
      merge = loc: definitions:
        let
          kind = value: if lib.isStringLike value && !isString value then "stringCoercibleSet" else builtins.typeOf value;
          kinds = lib.unique (map (d: kind d.value) definitions);
          one = {
            set = (lazyAttrsOf anything).merge;
            list = if length definitions > 1 then loc: ds: concatLists (map (d: d.value) ds) else mergeOneOption;
            stringCoercibleSet = mergeOneOption;
            lambda = loc: ds: x: anything.merge (loc ++ [ "<function body>" ]) (map (d: { inherit (d) file; value = d.value x; }) ds);
          };
        in
        if length kinds == 1 then (one.${head kinds} or mergeEqualOption) loc definitions else mergeEqualOption loc definitions;
    };

    bool = simple "bool" "boolean" isBool;
    boolByOr = mkOptionType { name = "boolByOr"; description = "boolean (merged using or)"; check = isBool; merge = _: ds: any (d: d.value) ds; };
    int = simple "int" "signed integer" isInt;
    float = simple "float" "floating point number" isFloat;
    number = either int float;
    numbers = { between = low: high: refine number (x: x >= low && x <= high); nonnegative = refine number (x: x >= 0); positive = refine number (x: x > 0); };
    ints = {
      inherit between;
      unsigned = refine int (x: x >= 0) // { name = "unsignedInt"; description = "unsigned integer, meaning >=0"; };
      positive = refine int (x: x > 0) // { name = "positiveInt"; description = "positive integer, meaning >0"; };
      u8 = unsigned 8 255;
      u16 = unsigned 16 65535;
      u32 = unsigned 32 4294967295;
      s8 = between (-128) 127;
      s16 = between (-32768) 32767;
      s32 = between (-2147483648) 2147483647;
    };
    port = ints.u16;

    str = simple "str" "string" isString;
    nonEmptyStr = simple "nonEmptyStr" "non-empty string" (x: isString x && match "[ \t\n]*" x == null);
    singleLineStr = simple "singleLineStr" "(optionally newline-terminated) single-line string" (x: isString x && match "[^\n\r]*\n?" x != null)
      // { merge = loc: definitions: lib.removeSuffix "\n" (mergeEqualOption loc definitions); };
    strMatching = pattern: simple "strMatching ${builtins.toJSON pattern}" "string matching the pattern ${pattern}" (x: isString x && match pattern x != null);
    separatedString = separator: concatenated "separatedString" separator;
    lines = concatenated "lines" "\n" // { name = "separatedString"; };
    commas = concatenated "commas" "," // { name = "separatedString"; };
    envVar = concatenated "envVar" ":" // { name = "separatedString"; };
    string = concatenated "string" "";
    passwdEntry = inner: refine inner (x: !(lib.hasInfix ":" (toString x)) && !(lib.hasInfix "\n" (toString x))) // { name = "passwdEntry ${inner.name}"; };
    attrs = mkOptionType {
      name = "attrs";
      description = "attribute set";
      check = isAttrs;
      merge = _: definitions: lib.foldl' (a: d: a // d.value) { } definitions;
      emptyValue.value = { };
    };
    package = mkOptionType {
      name = "package";
      check = x: lib.isDerivation x || lib.isStorePath x;
      merge = loc: definitions:
        let value = mergeOneOption loc definitions; in
        if lib.isDerivation value then value else { type = "derivation"; name = "path"; outPath = toString value; outputs = [ "out" ]; };
    };
    shellPackage = refine package (x: x ? shellPath) // { name = "shellPackage"; };
    pkgs = mkOptionType { name = "pkgs"; description = "Nixpkgs package set"; check = x: x._type or null == "pkgs"; merge = mergeOneOption; };
    path = mkOptionType { name = "path"; check = x: lib.isStringLike x && builtins.substring 0 1 (toString x) == "/"; merge = mergeEqualOption; };
    pathInStore = refine path lib.isStorePath // { name = "pathInStore"; };
    externalPath = path // { name = "externalPath"; };
    deferredModule = deferredModuleWith { };
    deferredModuleWith = { staticModules ? [ ] }: mkOptionType {
      name = "deferredModule";
      description = "module";
      check = x: isAttrs x || isFunction x || path.check x;
      merge = loc: definitions: { imports = staticModules ++ map (d: { _file = d.file; imports = [ d.value ]; }) definitions; };
    };
    functionTo = inner: wrapping functionTo inner {
      name = "functionTo";
      description = "function that evaluates to a(n) ${inner.description}";
      check = isFunction;
      merge = loc: definitions: x: (mergeDefinitions (loc ++ [ "<function body>" ]) inner (map (d: { inherit (d) file; value = d.value x; }) definitions)).mergedValue;
    };

    enum = values: mkOptionType {
      name = "enum";
      description = "one of ${lib.concatMapStringsSep ", " (v: if isString v then builtins.toJSON v else toString v) values}";
      check = x: elem x values;
      merge = mergeEqualOption;
      functor.payload = { inherit values; };
      typeMerge = other: if other.name == "enum" then enum (lib.unique (values ++ other.functor.payload.values)) else null;
    };
    nullOr = inner: wrapping nullOr inner {
      name = "nullOr";
      description = "null or ${inner.description}";
      check = x: x == null || inner.check x;
      emptyValue.value = null;
      inherit (inner) getSubOptions;
      merge = loc: definitions:
        let nulls = lib.count (d: d.value == null) definitions; in
        if nulls == length definitions then null
        else if nulls != 0 then throw "The option `${showOption loc}' is defined both null and not null, in ${lib.showFiles (lib.getFiles definitions)}."
        else inner.merge loc definitions;
    };
    listOf = inner: wrapping listOf inner {
      name = "listOf";
      description = "list of ${inner.description}";
      check = isList;
      emptyValue.value = [ ];
      getSubOptions = prefix: inner.getSubOptions (prefix ++ [ "*" ]);
      merge = loc: definitions:
        map (x: x.value) (filter (x: x.isDefined) (concatLists (imap1
          (n: d: imap1
            (m: value: (mergeDefinitions (loc ++ [ "[definition ${toString n}-entry ${toString m}]" ]) inner [{ inherit (d) file; inherit value; }]).optionalValue)
            d.value)
          definitions)));
    };
    nonEmptyListOf = inner: refine (listOf inner) (x: x != [ ]) // { name = "nonEmptyListOf"; };
    attrsOf = inner: wrapping attrsOf inner {
      name = "attrsOf";
      description = "attribute set of ${inner.description}";
      check = isAttrs;
      emptyValue.value = { };
      getSubOptions = prefix: inner.getSubOptions (prefix ++ [ "<name>" ]);
      merge = loc: definitions:
        mapAttrs (_: x: x.value) (lib.filterAttrs (_: x: x.isDefined)
          (mapAttrs (name: ds: (mergeDefinitions (loc ++ [ name ]) inner ds).optionalValue) (byName definitions)));
    };
    lazyAttrsOf = inner: wrapping lazyAttrsOf inner {
      name = "lazyAttrsOf";
      description = "lazy attribute set of ${inner.description}";
      check = isAttrs;
      emptyValue.value = { };
      getSubOptions = prefix: inner.getSubOptions (prefix ++ [ "<name>" ]);
      merge = loc: definitions:
        mapAttrs
          (name: ds:
            let merged = mergeDefinitions (loc ++ [ name ]) inner ds; in
            if merged.isDefined then merged.mergedValue else inner.emptyValue.value or merged.mergedValue)
          (byName definitions);
    };
    attrsWith = { elemType, lazy ? false, placeholder ? "name" }: (if lazy then lazyAttrsOf else attrsOf) elemType;
    loaOf = attrsOf;
    uniq = inner: unique' { message = ""; } inner // { name = "uniq"; };
    unique' = { message }: inner: wrapping (unique' { inherit message; }) inner { name = "unique"; inherit (inner) description check emptyValue; merge = lib.mergeUniqueOption { inherit message; inherit (inner) merge; }; };
    unique = types.unique';

    either = a: b: mkOptionType {
      name = "either";
      description = "${a.description} or ${b.description}";
      check = x: a.check x || b.check x;
      nestedTypes = { left = a; right = b; };
      merge = loc: definitions:
        if all (d: a.check d.value) definitions then a.merge loc definitions
        else if all (d: b.check d.value) definitions then b.merge loc definitions
        else mergeOneOption loc definitions;
      typeMerge = other:
        let
          left = a.typeMerge other.nestedTypes.left;
          right = b.typeMerge other.nestedTypes.right;
        in
        if other.name != "either" || left == null || right == null then null else either left right;
    };
    oneOf = alternatives: lib.foldl' either (head alternatives) (lib.tail alternatives);
    coercedTo = from: coerce: to: mkOptionType {
      name = "coercedTo";
      description = "${to.description} or ${from.description} convertible to it";
      check = x: (from.check x && to.check (coerce x)) || to.check x;
      inherit (to) emptyValue getSubOptions getSubModules;
      merge = loc: definitions: to.merge loc (map (d: d // { value = if from.check d.value then coerce d.value else d.value; }) definitions);
      substSubModules = modules: coercedTo from coerce (to.substSubModules modules);
      nestedTypes = { coercedType = from; finalType = to; };
    };
    addCheck = refine;
    attrTag = tags: mkOptionType {
      name = "attrTag";
      description = "attribute-tagged union";
      check = x: isAttrs x && length (attrNames x) == 1 && tags ? ${head (attrNames x)};
      merge = loc: definitions:
        let tag = head (attrNames (head definitions).value); in
        { ${tag} = (mergeDefinitions (loc ++ [ tag ]) tags.${tag}.type (map (d: { inherit (d) file; value = d.value.${tag}; }) definitions)).mergedValue; };
    };

    submodule = modules: submoduleWith { shorthandOnlyDefinesConfig = true; modules = lib.toList modules; };
    submoduleWith = { modules, specialArgs ? { }, shorthandOnlyDefinesConfig ? false, description ? null, class ? null }@arguments:
      let
        asModule = d:
          if isAttrs d.value && shorthandOnlyDefinesConfig then { _file = d.file; config = d.value; }
          else { _file = d.file; imports = [ d.value ]; };
        nameModule = name: { _file = "lib/types.nix"; key = "lib/types.nix:name"; config._module.args.name = lib.mkOptionDefault name; };
        evaluate = prefix: name: extra: lib.evalModules { inherit specialArgs class prefix; modules = [ (nameModule name) ] ++ modules ++ extra; };
      in
      mkOptionType {
        name = "submodule";
        description = if description != null then description else "submodule";
        check = x: isAttrs x || isFunction x || path.check x;
        emptyValue.value = { };
        merge = loc: definitions: (evaluate loc (lib.last loc) (map asModule definitions)).config;
        getSubOptions = prefix: (evaluate prefix "‹name›" [ ]).options;
        getSubModules = modules;
        substSubModules = replacement: submoduleWith (arguments // { modules = replacement; });
        functor.payload = arguments;
        typeMerge = other:
          if other.name != "submodule" then null
          else submoduleWith (arguments // {
            modules = modules ++ other.functor.payload.modules;
            specialArgs = specialArgs // other.functor.payload.specialArgs or { };
          });
      };
  };
in
types
