# Debian's kernel and the part of its modules that a virtual machine needs.
{ lib, pkgs }:
let
  release = lib.head (lib.attrNames (builtins.readDir "${pkgs.debian}/usr/lib/modules"));
  version = lib.head (lib.splitString "+" release);
in
pkgs.runCommand "linux-${version}"
{
  pname = "linux";
  inherit version;
  passthru = {
    modDirVersion = release;
    target = "bzImage";
    stdenv = pkgs.stdenv;
    features = { };
    config = { isYes = _: true; isEnabled = _: true; isSet = _: true; };
    kernelOlder = lib.versionOlder version;
    kernelAtLeast = lib.versionAtLeast version;
  };
} ''
  mkdir -p $out/lib/modules/${release}
  cp $debian/boot/vmlinuz-${release} $out/bzImage
  cp $debian/boot/config-${release} $out/config
  cp -r $debian/usr/lib/modules/${release}/. $out/lib/modules/${release}/
  chmod -R u+w $out
  rm -f $out/lib/modules/${release}/{build,source}
  tree depmod -b $out -m /lib/modules ${release} 2>/dev/null || tree depmod -b $out ${release}
  test -s $out/lib/modules/${release}/modules.dep
''
