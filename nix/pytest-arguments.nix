# How pytest judges a prepared host, for checkHost and judge alike.
{ lib }:
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
  repeated = option: values: lib.concatMap (value: [ option value ]) values;
in
[ "${pytest-nixos}/bin/pytest" "--nixos-prepared" "${directory}" ]
++ repeated "--nixos-profile" profiles
++ repeated "--nixos-suite" suites
# pytest would take the store for the root of the tests: it sees a path there before it knows the option.
++ [ "--rootdir" "." "--nixos-fail-on" failOn "-p" "no:cacheprovider" ]
++ lib.optionals (waivers != null) [ "--nixos-waivers" "${waivers}" ]
++ map (test: "${test}") tests
++ map toString arguments
