# How pytest judges a prepared host, for checkHost and judge alike. What is wrong about an argument is told when it is evaluated.
{ lib, refuse }:
{
  pytest-nixos,
  directory,
  profiles,
  suites,
  tests,
  waivers,
  failOn,
  arguments,
}:
let
  severities = [ "style" "low" "medium" "high" "critical" ];

  listOf =
    name: values:
    if builtins.isList values then
      values
    else
      refuse "${name}: expected a list, got ${builtins.typeOf values}: ${name} = [ ... ];";

  # A text that is no store path is a file of the machine that evaluates, which the builder does not have.
  file =
    name: value:
    let
      path = "${value}";
    in
    if builtins.isPath value || builtins.isAttrs value || lib.hasPrefix builtins.storeDir path then
      path
    else
      refuse "${name}: ${path} is a text, and a build sees no file outside of the store: write it as a path, ./test_web.py, in the flake's source";

  repeated =
    option: name: values:
    lib.concatMap (value: [ option value ]) (listOf name values);
in
[ "${pytest-nixos}/bin/pytest" "--nixos-prepared" "${directory}" ]
++ repeated "--nixos-profile" "profiles" profiles
++ repeated "--nixos-suite" "suites" suites
# pytest would take the store for the root of the tests: it sees a path there before it knows the option.
++ [ "--rootdir" "." "--nixos-fail-on" ]
++ [
  (
    if builtins.elem (lib.toLower failOn) severities then
      failOn
    else
      refuse "failOn: ${toString failOn}; known: ${lib.concatStringsSep ", " severities}"
  )
]
++ [ "-p" "no:cacheprovider" ]
++ lib.optionals (waivers != null) [ "--nixos-waivers" (file "waivers" waivers) ]
++ map (file "tests") (listOf "tests" tests)
++ map toString (listOf "arguments" arguments)
