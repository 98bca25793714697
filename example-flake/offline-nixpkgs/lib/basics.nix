# Functions on values, lists, attribute sets and strings, under the names that nixpkgs' library gives them.
rec {
  inherit (builtins)
    add all any attrNames attrValues baseNameOf bitAnd bitOr bitXor catAttrs ceil compareVersions concatLists concatMap concatStringsSep
    deepSeq dirOf div elem elemAt filter floor foldl' fromJSON fromTOML functionArgs genList genericClosure getAttr getEnv groupBy
    hasAttr hashString head intersectAttrs isAttrs isBool isFloat isInt isList isPath isString length lessThan listToAttrs map mapAttrs
    match mul parseDrvName partition pathExists readDir readFile removeAttrs replaceStrings seq sort split splitVersion
    stringLength sub substring tail toJSON toPath toString tryEval typeOf unsafeGetAttrPos zipAttrsWith;

  # -- values and functions
  id = x: x;
  const = x: _: x;
  flip = f: a: b: f b a;
  pipe = builtins.foldl' (x: f: f x);
  min = a: b: if a < b then a else b;
  max = a: b: if a > b then a else b;
  mod = base: int: base - (int * (base / int));
  boolToString = b: if b then "true" else "false";
  boolToYesNo = b: if b then "yes" else "no";
  mapNullable = f: a: if a == null then a else f a;
  defaultTo = fallback: a: if a == null then fallback else a;
  trace = builtins.trace;
  warn = message: builtins.trace "evaluation warning: ${message}";
  warnIf = condition: message: if condition then warn message else id;
  warnIfNot = condition: warnIf (!condition);
  throwIf = condition: message: if condition then throw message else id;
  throwIfNot = condition: throwIf (!condition);
  assertMsg = condition: message: condition || throw message;
  assertOneOf = name: value: known:
    assertMsg (elem value known) "${name} must be one of ${concatMapStringsSep ", " toString known}, but is: ${toString value}";
  isFunction = f: builtins.isFunction f || (f ? __functor && isFunction (f.__functor f));
  setFunctionArgs = f: args: { __functor = _: f; __functionArgs = args; };
  isStringLike = x: isString x || isPath x || x ? outPath || x ? __toString;
  isConvertibleWithToString = x: isStringLike x || elem (typeOf x) [ "null" "int" "float" "bool" ] || (isList x && all isConvertibleWithToString x);
  importJSON = path: fromJSON (readFile path);
  importTOML = path: fromTOML (readFile path);
  fix = f: let x = f x; in x;
  extends = overlay: f: final: let prev = f final; in prev // overlay final prev;
  composeExtensions = f: g: final: prev: let first = f final prev; in first // g final (prev // first);
  composeManyExtensions = foldr composeExtensions (_: _: { });
  makeOverridable = f: args: f args // { override = new: makeOverridable f (args // (if isFunction new then new args else new)); };

  # -- lists
  singleton = x: [ x ];
  last = list: elemAt list (length list - 1);
  init = list: take (length list - 1) list;
  take = n: list: genList (elemAt list) (min n (length list));
  drop = n: list: genList (i: elemAt list (i + n)) (max 0 (length list - n));
  sublist = start: count: list: take count (drop start list);
  reverseList = list: let n = length list; in genList (i: elemAt list (n - i - 1)) n;
  foldr = op: nul: list: let go = i: if i == length list then nul else op (elemAt list i) (go (i + 1)); in go 0;
  foldl = foldl';
  fold = foldr;
  range = from: to: if from > to then [ ] else genList (n: from + n) (to - from + 1);
  replicate = n: x: genList (_: x) n;
  imap0 = f: list: genList (i: f i (elemAt list i)) (length list);
  imap1 = f: imap0 (i: f (i + 1));
  forEach = list: f: map f list;
  flatten = x: if isList x then concatMap flatten x else [ x ];
  remove = x: filter (y: y != x);
  count = predicate: list: length (filter predicate list);
  findFirst = predicate: fallback: list: let found = filter predicate list; in if found == [ ] then fallback else head found;
  findSingle = predicate: none: many: list:
    let found = filter predicate list; in if found == [ ] then none else if length found > 1 then many else head found;
  optional = condition: x: if condition then [ x ] else [ ];
  optionals = condition: list: if condition then list else [ ];
  toList = x: if isList x then x else [ x ];
  unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
  intersectLists = a: filter (x: elem x a);
  subtractLists = a: filter (x: !(elem x a));
  naturalSort = sort lessThan;
  sortOn = f: sort (a: b: f a < f b);
  zipListsWith = f: a: b: genList (i: f (elemAt a i) (elemAt b i)) (min (length a) (length b));
  zipLists = zipListsWith (fst: snd: { inherit fst snd; });
  crossLists = f: foldl' (fs: args: concatMap (g: map g args) fs) [ f ];
  hasPrefixList = prefix: list: take (length prefix) list == prefix;

  # -- attribute sets
  nameValuePair = name: value: { inherit name value; };
  attrByPath = path: fallback: set:
    if path == [ ] then set else if set ? ${head path} then attrByPath (tail path) fallback set.${head path} else fallback;
  hasAttrByPath = path: set: path == [ ] || (set ? ${head path} && hasAttrByPath (tail path) set.${head path});
  setAttrByPath = path: value: foldr (name: inner: { ${name} = inner; }) value path;
  getAttrFromPath = path: attrByPath path (throw "cannot find attribute `${concatStringsSep "." path}'");
  getAttrs = names: set: genAttrs names (name: set.${name});
  attrVals = names: set: map (name: set.${name}) names;
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  attrsToList = mapAttrsToList nameValuePair;
  concatMapAttrs = f: set: foldl' (a: b: a // b) { } (mapAttrsToList f set);
  filterAttrs = predicate: set: removeAttrs set (filter (name: !(predicate name set.${name})) (attrNames set));
  foldlAttrs = f: start: set: foldl' (acc: name: f acc name set.${name}) start (attrNames set);
  optionalAttrs = condition: set: if condition then set else { };
  mergeAttrsList = foldl' (a: b: a // b) { };
  zipAttrs = zipAttrsWith (_: values: values);
  isDerivation = x: x.type or null == "derivation";
  recurseIntoAttrs = set: set // { recurseForDerivations = true; };
  recursiveUpdate = a: b:
    a // mapAttrs (name: value: if isAttrs value && isAttrs (a.${name} or null) then recursiveUpdate a.${name} value else value) b;
  mapAttrsRecursive = mapAttrsRecursiveCond (_: true);
  mapAttrsRecursiveCond = condition: f:
    let go = path: mapAttrs (name: value: if isAttrs value && condition value then go (path ++ [ name ]) value else f (path ++ [ name ]) value);
    in go [ ];
  collect = predicate: set: if predicate set then [ set ] else if isAttrs set then concatMap (collect predicate) (attrValues set) else [ ];
  cartesianProduct = sets: foldl' (rows: name: concatMap (row: map (value: row // { ${name} = value; }) sets.${name}) rows) [ { } ] (attrNames sets);
  getOutput = output: package: if package.outputUnspecified or false then package.${output} or package.out or package else package;
  getBin = getOutput "bin";
  getLib = getOutput "lib";
  getDev = getOutput "dev";
  getExe = package: getExe' package (package.meta.mainProgram or package.pname or (parseDrvName package.name).name);
  getExe' = package: name: "${getBin package}/bin/${name}";

  # -- strings
  concatStrings = concatStringsSep "";
  concatMapStrings = f: list: concatStrings (map f list);
  concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
  concatImapStrings = f: list: concatStrings (imap1 f list);
  concatImapStringsSep = separator: f: list: concatStringsSep separator (imap1 f list);
  concatMapAttrsStringSep = separator: f: set: concatStringsSep separator (mapAttrsToList f set);
  concatLines = concatMapStrings (line: line + "\n");
  intersperse = separator: list: drop 1 (concatMap (x: [ separator x ]) list);
  optionalString = condition: string: if condition then string else "";
  stringToCharacters = string: genList (i: substring i 1 string) (stringLength string);
  stringAsChars = f: string: concatMapStrings f (stringToCharacters string);
  hasPrefix = prefix: string: substring 0 (stringLength prefix) string == prefix;
  hasSuffix = suffix: string:
    let n = stringLength string; m = stringLength suffix; in m <= n && substring (n - m) m string == suffix;
  hasInfix = infix: string: infix == "" || replaceStrings [ infix ] [ "" ] "${string}" != "${string}";
  removePrefix = prefix: string:
    if hasPrefix prefix string then substring (stringLength prefix) (stringLength string) string else string;
  removeSuffix = suffix: string:
    if hasSuffix suffix string then substring 0 (stringLength string - stringLength suffix) string else string;
  splitString = separator: string: filter isString (builtins.split (escapeRegex (toString separator)) (toString string));
  lowerChars = stringToCharacters "abcdefghijklmnopqrstuvwxyz";
  upperChars = stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  toLower = replaceStrings upperChars lowerChars;
  toUpper = replaceStrings lowerChars upperChars;
  toSentenceCase = string: toUpper (substring 0 1 string) + toLower (substring 1 (stringLength string) string);
  escape = characters: replaceStrings characters (map (c: "\\${c}") characters);
  escapeRegex = escape (stringToCharacters "\\[{()^$?*+|.");
  escapeShellArg = x:
    let string = toString x;
    in if match "[[:alnum:],._+:@%/-]+" string != null then string else "'${replaceStrings [ "'" ] [ "'\\''" ] string}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  escapeNixString = string: escape [ "$" ] (toJSON string);
  escapeXML = replaceStrings [ "\"" "'" "<" ">" "&" ] [ "&quot;" "&apos;" "&lt;" "&gt;" "&amp;" ];
  isValidPosixName = name: match "[a-zA-Z_][a-zA-Z0-9_]*" name != null;
  toShellVar = name: value: "${name}=${escapeShellArg value}";
  toShellVars = set: concatStringsSep "\n" (mapAttrsToList toShellVar set);
  trim = string: let found = match "[[:space:]]*(.*[^[:space:]])[[:space:]]*" string; in if found == null then "" else head found;
  toInt = string:
    let value = fromJSON (head (defaultTo [ "null" ] (match "0*([0-9]+|-[0-9]+)" (trim string))));
    in if isInt value then value else throw "toInt: Could not convert ${escapeNixString string} to int.";
  toIntBase10 = toInt;
  fixedWidthString = width: filler: string:
    if stringLength string >= width then string else fixedWidthString width filler (filler + string);
  fixedWidthNumber = width: n: fixedWidthString width "0" (toString n);
  fileContents = file: removeSuffix "\n" (readFile file);
  versionOlder = a: b: compareVersions b a == 1;
  versionAtLeast = a: b: !(versionOlder a b);
  getName = x: if isString x then (parseDrvName x).name else x.pname or (parseDrvName x.name).name;
  getVersion = x: if isString x then (parseDrvName x).version else x.version or (parseDrvName x.name).version;
  nameFromURL = url: separator: head (splitString separator (last (splitString "/" url)));
  isStorePath = x: isStringLike x && dirOf (toString x) == builtins.storeDir;
  makeSearchPath = folder: paths: concatStringsSep ":" (map (path: "${path}/${folder}") (filter (x: x != null) paths));
  makeSearchPathOutput = output: folder: packages: makeSearchPath folder (map (getOutput output) packages);
  makeBinPath = makeSearchPathOutput "bin" "bin";
  makeLibraryPath = makeSearchPathOutput "lib" "lib";
  commonPrefixLength = a: b:
    let n = min (stringLength a) (stringLength b); go = i: if i < n && substring i 1 a == substring i 1 b then go (i + 1) else i; in go 0;
  toHexString = n:
    let digit = d: substring d 1 "0123456789ABCDEF"; in if n < 16 then digit n else toHexString (n / 16) + digit (mod n 16);
  cleanSource = path: path;
  mdDoc = text: text;

  # -- ordering: a list with before(a, b) into { result } or { cycle, loops }
  toposort = before: list:
    let
      free = filter (x: !(any (y: y != x && before y x) list)) list;
      rest = toposort before (filter (x: x != head free) list);
    in
    if length list <= 1 then { result = list; }
    else if free == [ ] then { cycle = list; loops = list; }
    else if rest ? result then { result = [ (head free) ] ++ rest.result; }
    else rest;
}
