# The Debian tree as one store path that runs by itself: interpreters, run paths and first lines of scripts point into it.
{ system, unpacked }:
derivation {
  name = "debian-13";
  inherit system unpacked;
  builder = "${unpacked}/usr/bin/bash-static";
  args = [ ./relocate ];
  python = ./relocate.py;
  preferLocalBuild = true;
  allowSubstitutes = false;
}
