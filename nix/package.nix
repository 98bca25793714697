# pytest with this plugin, and its command line: bin/pytest and bin/pytest-nixos.
{
  pkgs,
  python3 ? pkgs.python3,
  # From a Python package set to packages of suites, beside this one's.
  suites ? _: [ ],
}:
let
  python = python3.override { packageOverrides = import ./python.nix; };
in
python.withPackages (
  packages:
  [
    packages.pytest
    packages.pytest-nixos
  ]
  ++ suites packages
)
