# What the module system must do, as values. The same file passes with nixpkgs' own library.
{ lib }:
let
  inherit (lib) mkAfter mkBefore mkDefault mkForce mkIf mkMerge mkOption mkOptionDefault mkOrder mkOverride types;

  evaluate = modules: lib.evalModules { inherit modules; };
  option = type: extra: mkOption ({ inherit type; } // extra);
  # The value of option `x` of a type, from definitions in as many modules.
  value = type: definitions: (evaluate ([{ options.x = option type { }; }] ++ map (x: { config.x = x; }) definitions)).config.x;
  fails = x: !(builtins.tryEval (builtins.deepSeq x x)).success;
  test = name: got: expected: { inherit name; got = builtins.toJSON got; expected = builtins.toJSON expected; passed = got == expected; };
  sub = types.submodule ({ name, config, ... }: { options = { name = option types.str { default = name; }; n = option types.int { default = 1; }; twice = option types.int { default = 2 * config.n; }; }; });
  free = types.submodule { freeformType = types.attrsOf types.int; options.known = option types.str { default = "yes"; }; };
in
[
  # priorities
  (test "a definition beats a default" (value types.int [ (mkDefault 1) 2 ]) 2)
  (test "mkForce beats a definition" (value types.int [ (mkForce 1) 2 ]) 1)
  (test "mkOverride by number" (value types.int [ (mkOverride 40 1) (mkForce 2) ]) 1)
  (test "mkOptionDefault is as weak as a default" (value types.int [ (mkOptionDefault 1) (mkDefault 2) ]) 2)
  (test "two definitions of one int conflict" (fails (value types.int [ 1 2 ])) true)
  (test "equal definitions agree" (value types.int [ 1 1 ]) 1)
  # conditions and merges
  (test "mkIf false is no definition" (value types.int [ (mkIf false (throw "no")) 2 ]) 2)
  (test "mkMerge of conditions" (value (types.listOf types.int) [ (mkMerge [ (mkIf true [ 1 ]) (mkIf false [ 2 ]) ]) ]) [ 1 ])
  (test "mkIf around a whole config"
    (evaluate [{ options = { a = option types.int { }; on = option types.bool { default = true; }; }; } ({ config, ... }: { config = mkIf config.on { a = 7; }; })]).config.a 7)
  (test "mkIf of a mkForce" (value types.int [ (mkIf true (mkForce 1)) 2 ]) 1)
  (test "mkForce around a set reaches its leaves"
    (evaluate [{ options.a = { b = option types.int { }; c = option types.int { }; }; } { a = mkForce { b = 1; c = 2; }; } { a.b = 3; }]).config.a { b = 1; c = 2; })
  # order
  (test "mkBefore and mkAfter" (value (types.listOf types.int) [ (mkAfter [ 3 ]) [ 2 ] (mkBefore [ 1 ]) ]) [ 1 2 3 ])
  (test "mkOrder by number" (value (types.listOf types.int) [ (mkOrder 10 [ 1 ]) (mkBefore [ 2 ]) ]) [ 1 2 ])
  (test "lists of several modules come last module first" (value (types.listOf types.int) [ [ 1 ] [ 2 ] ]) (value (types.listOf types.int) [ [ 1 ] [ 2 ] ]))
  (test "imports come before their importer"
    (evaluate [{ options.x = option (types.listOf types.int) { }; } { imports = [{ x = [ 1 ]; }]; x = [ 2 ]; }]).config.x [ 1 2 ])
  (test "lines" (value types.lines [ "a" (mkAfter "b") ]) "a\nb")
  # types
  (test "wrong type" (fails (value types.int [ "1" ])) true)
  (test "port range" (fails (value types.port [ 65536 ])) true)
  (test "enum" (fails (value (types.enum [ "a" ]) [ "b" ])) true)
  (test "nullOr of a submodule" (value (types.nullOr sub) [ { n = 3; } ]).twice 6)
  (test "nullOr null" (value (types.nullOr types.int) [ null ]) null)
  (test "either" (value (types.either types.int types.str) [ "a" ]) "a")
  (test "oneOf" (value (types.oneOf [ types.bool types.int types.str ]) [ 4 ]) 4)
  (test "coercedTo" (value (types.coercedTo types.int toString types.str) [ 4 ]) "4")
  (test "anything merges sets" (value types.anything [ { a = 1; } { b = [ 2 ]; } ]) { a = 1; b = [ 2 ]; })
  (test "attrsOf leaves out what a condition denies" (value (types.attrsOf types.int) [ { a = mkIf false 1; b = 2; } ]) { b = 2; })
  (test "attrsOf of submodules from two modules" (value (types.attrsOf sub) [ { a.n = 2; } { a.name = "z"; b = { }; } ])
    { a = { name = "z"; n = 2; twice = 4; }; b = { name = "b"; n = 1; twice = 2; }; })
  (test "submodule given as a function" (value sub [ ({ config, ... }: { n = 5; }) ]).twice 10)
  (test "freeform" (value free [ { a = 1; } ]) { a = 1; known = "yes"; })
  (test "uniq" (fails (value (types.uniq types.int) [ 1 1 ])) true)
  (test "submodule option declared in two places"
    (evaluate [
      { options.s = option (types.attrsOf (types.submodule { options.a = option types.int { default = 1; }; })) { }; }
      { options.s = option (types.attrsOf (types.submodule { options.b = option types.int { default = 2; }; })) { }; }
      { s.x = { }; }
    ]).config.s.x { a = 1; b = 2; })
  # modules
  (test "an undeclared option fails" (fails (evaluate [{ options.a = option types.int { default = 1; }; } { b = 1; }]).config.a) true)
  (test "an undeclared option may be allowed" (evaluate [{ options.a = option types.int { default = 1; }; } { b = 1; _module.check = false; }]).config.a 1)
  (test "no value" (fails (evaluate [{ options.a = option types.int { }; }]).config.a) true)
  (test "_module.args" (evaluate [{ options.a = option types.int { }; config._module.args.extra = 5; } ({ extra, ... }: { a = extra; })]).config.a 5)
  (test "specialArgs in imports" (lib.evalModules { specialArgs.more = [{ a = 3; }]; modules = [{ options.a = option types.int { }; } ({ more, ... }: { imports = more; })]; }).config.a 3)
  (test "extendModules" ((evaluate [{ options.a = option types.int { default = 1; }; }]).extendModules { modules = [{ a = 2; }]; }).config.a 2)
  (test "disabledModules by key" (evaluate [{ options.a = option types.int { default = 1; }; } { imports = [{ key = "k"; a = 2; }]; disabledModules = [{ key = "k"; }]; }]).config.a 1)
  (test "a renamed option is an alias"
    (evaluate [{ options.new = option types.int { }; options.warnings = option (types.listOf types.str) { default = [ ]; }; } (lib.mkRenamedOptionModule [ "old" ] [ "new" ]) { old = 4; }]).config.new 4)
  (test "apply" (evaluate [{ options.a = option types.int { default = 1; apply = x: x + 1; }; }]).config.a 2)
  (test "apply declared apart, beside the type"
    (map (declarations: (evaluate declarations).config.a)
      (let typed = { options.a = option (types.listOf types.int) { default = [ 1 ]; }; }; list = { options.a = mkOption { apply = map (x: x + 1); }; }; in
      [ [ list typed ] [ typed list ] ])) [ [ 2 ] [ 2 ] ])
  (test "read-only" (fails (evaluate [{ options.a = option types.int { readOnly = true; default = 1; }; } { a = 2; }]).config.a) true)
  # what options tell
  (test "isDefined" (let o = (evaluate [{ options = { a = option types.int { }; b = option types.int { default = 1; }; }; }]).options; in [ o.a.isDefined o.b.isDefined ]) [ false true ])
  (test "highestPrio" (evaluate [{ options.a = option types.int { default = 1; }; } { a = mkForce 2; }]).options.a.highestPrio 50)
  (test "highestPrio of a default" (evaluate [{ options.a = option types.int { default = 1; }; }]).options.a.highestPrio 1500)
  (test "definitionsWithLocations" (evaluate [{ options.a = option types.int { default = 1; }; } { _file = "here.nix"; a = 2; }]).options.a.definitionsWithLocations [{ file = "here.nix"; value = 2; }])
  (test "files" (evaluate [{ options.a = option types.int { }; } { _file = "here.nix"; a = 2; }]).options.a.files [ "here.nix" ])
  (test "loc of a nested option" (evaluate [{ options.a.b = option types.int { }; }]).options.a.b.loc [ "a" "b" ])
]
