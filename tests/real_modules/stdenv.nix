# The one stage of this package set: a stdenv whose tools, compiler and shell are Debian's. An argument `stdenvStages` of nixpkgs.
{ tree, programs }:
{ lib, localSystem, config, overlays, ... }:
let
  generic = import (tree + "/pkgs/stdenv/generic");
  shell = "${programs}/usr/bin/bash";
  platforms = { buildPlatform = localSystem; hostPlatform = localSystem; targetPlatform = localSystem; };

  stdenvWith = cc: generic (platforms // {
    inherit cc config shell;
    name = "stdenv-debian";
    initialPath = [ programs ];
    fetchurlBoot = import (tree + "/pkgs/build-support/fetchurl/boot.nix") { inherit (localSystem) system; };
  });

  compiler = derivation {
    name = "gcc-debian";
    inherit (localSystem) system;
    inherit programs;
    builder = shell;
    args = [ ./compiler ];
  };
  bintools = { targetPrefix = ""; isGNU = true; isLLVM = false; bintools = programs; version = "2.44"; dynamicLinker = "${programs}/usr/lib64/ld-linux-x86-64.so.2"; };
  cc = compiler // {
    inherit bintools;
    isGNU = true;
    isClang = false;
    cc = compiler // { lib = programs; isGNU = true; isClang = false; };
    libc = programs // { pname = "glibc"; version = "2.41"; out = compiler; };
    version = "14.2.0";
    targetPrefix = "";
    nativeTools = false;
    suffixSalt = "x86_64_unknown_linux_gnu";
  };
in
[
  (_: { __raw = true; stdenv = stdenvWith null; })
  (_: { inherit config overlays; stdenv = stdenvWith cc; })
]
