# The stand-in's packages: Debian's programs under the names that nixpkgs gives them.
{ lib, debian, system }:
let
  build = import ./build.nix { inherit lib debian system; inherit (pkgs) bash; };
  inherit (build) runCommand shell;

  versions = lib.importJSON "${debian}/versions.json";
  versionOf = name: lib.head (lib.splitString "-" (lib.last (lib.splitString ":" (versions.${name} or "0"))));

  # A package whose bin/ links to the tree's programs. Renamed ones are given as { name-here = "name-there"; }.
  package = name: programs: renamed: extra: runCommand name { pname = name; version = versionOf name; meta.mainProgram = lib.head (programs ++ lib.attrNames renamed); } ''
    mkdir -p $out/bin
    for name in ${lib.escapeShellArgs programs}; do
      for folder in bin sbin; do
        if [ -e "$debian/usr/$folder/$name" ]; then ln -sf "$debian/usr/$folder/$name" "$out/bin/$name"; fi
      done
    done
    ${lib.concatStrings (lib.mapAttrsToList (here: there: "ln -s $debian/usr/${there} $out/bin/${here}\n") renamed)}
    [ -d $out/sbin ] || ln -s bin $out/sbin
    ${extra}
  '';

  hosted = import ./hosted.nix { inherit shell; };

  pkgs = build // lib.mapAttrs (name: programs: package name programs { } "") (import ./programs.nix) // {
    type = "pkgs";
    _type = "pkgs";
    inherit lib system pkgs debian;
    config = { };
    overlays = [ ];
    inherit (import ./shell.nix { inherit lib pkgs runCommand system; }) stdenv mkShell mkShellNoCC;
    hostPlatform = pkgs.stdenv.hostPlatform;
    targetPlatform = pkgs.stdenv.hostPlatform;
    runtimeShell = "${pkgs.bash}/bin/bash";
    path = toString ../.;

    # Bash finds its loader and libraries in the tree by itself: scripts start with it on whatever machine builds, starts or runs a host.
    bash = runCommand "bash-${versionOf "bash"}" { pname = "bash"; version = versionOf "bash"; meta.mainProgram = "bash"; passthru.shellPath = "/bin/bash"; } ''
      mkdir -p $out/bin
      tree patchelf --set-interpreter $debian/usr/lib64/ld-linux-x86-64.so.2 --set-rpath $debian/usr/lib/x86_64-linux-gnu --output $out/bin/bash $debian/usr/bin/bash
      chmod 0555 $out/bin/bash
      ln -s bash $out/bin/sh
    '';
    bashInteractive = pkgs.bash;
    busybox = build.applets;
    gawk = package "gawk" [ "gawk" ] { awk = "bin/gawk"; } "";
    which = package "which" [ ] { which = "bin/which.debianutils"; } "";
    netcat = package "netcat-openbsd" [ ] { nc = "bin/nc.openbsd"; } "";
    netcat-openbsd = pkgs.netcat;
    iptables = package "iptables" [ "iptables-apply" ]
      (lib.genAttrs [ "iptables-save" "iptables-restore" "ip6tables-save" "ip6tables-restore" ] (name: "sbin/xtables-nft-multi")
        // lib.genAttrs [ "iptables" "ip6tables" "iptables-nft" "ip6tables-nft" "xtables-nft-multi" ] (_: "sbin/xtables-nft-multi")
        // lib.genAttrs [ "iptables-legacy" "ip6tables-legacy" ] (_: "sbin/xtables-legacy-multi")) "";
    tzdata = runCommand "tzdata" { } "mkdir -p $out/share; ln -s $debian/usr/share/zoneinfo $out/share/zoneinfo";
    # A script that Debian starts by /bin/bash, which no guest has.
    wireguard-tools = package "wireguard-tools" [ "wg" ] { } ''
      sed "1s,.*,#!${pkgs.bash}/bin/bash," $debian/usr/bin/wg-quick > $out/bin/wg-quick
      chmod 0555 $out/bin/wg-quick
    '';
    cacert = runCommand "nss-cacert" { } ''
      mkdir -p $out/etc/ssl/certs
      cat $debian/usr/share/ca-certificates/mozilla/*.crt > $out/etc/ssl/certs/ca-bundle.crt
    '';
    iana-etc = runCommand "iana-etc" { } "mkdir -p $out/etc; ln -s $debian/etc/protocols $debian/etc/services $out/etc/";
    linux-pam = runCommand "linux-pam" { } "mkdir -p $out/lib; ln -s $debian/usr/lib/x86_64-linux-gnu/security $out/lib/security";
    nix = package "nix" (import ./programs.nix).nix { } "" // { version = "2.26.3"; };
    nixVersions.stable = pkgs.nix;
    zram-generator = runCommand "zram-generator" { } ''
      mkdir -p $out/lib/systemd/system-generators $out/lib/systemd/system
      ln -s $debian/usr/lib/systemd/system-generators/zram-generator $out/lib/systemd/system-generators/zram-generator
      sed "s,/usr/lib/systemd/system-generators/,$out/lib/systemd/system-generators/," \
        $debian/usr/lib/systemd/system/systemd-zram-setup@.service > $out/lib/systemd/system/systemd-zram-setup@.service
    '';
    openssh = package "openssh" (import ./programs.nix).openssh { } "mkdir -p $out/libexec; ln -s $debian/usr/lib/openssh/* $out/libexec/";
    ollama = import ./ollama { inherit lib pkgs; };
    systemd = import ./systemd.nix { inherit lib pkgs; };
    systemdMinimal = pkgs.systemd;
    udev = pkgs.systemd;
    linux = import ./linux.nix { inherit lib pkgs; };
    linuxPackages = { kernel = pkgs.linux; extend = _: pkgs.linuxPackages; };
    linuxPackages_latest = pkgs.linuxPackages;
    linuxPackagesFor = _: pkgs.linuxPackages;

    qemu = import ./qemu.nix { inherit runCommand hosted; };
    qemu_kvm = pkgs.qemu;
    qemu_test = pkgs.qemu;
    qemu-utils = pkgs.qemu;
    swtpm = runCommand "swtpm" { pname = "swtpm"; version = versionOf "swtpm"; meta.mainProgram = "swtpm"; } ''
      mkdir -p $out/bin
      ${hosted "swtpm" "$debian/usr/bin/swtpm" ""}
      sed -i "s,--library-path ,&$debian/usr/lib/x86_64-linux-gnu/swtpm:," $out/bin/swtpm
    '';
    # Tools that run scripts call before they start QEMU.
    hostTools = runCommand "host-tools" { } ''
      mkdir -p $out/bin
      ${hosted "mkfs.ext4" "$debian/usr/sbin/mke2fs" "-t ext4"}
      ${hosted "mkfs.erofs" "$debian/usr/bin/mkfs.erofs" ""}
      ${hosted "tar" "$debian/usr/bin/tar" ""}
      ln -s ${build.applets}/bin/* $out/bin/ 2>/dev/null || :
    '';
    formats = import ./formats.nix { inherit lib pkgs; };
    writers = {
      writeBash = pkgs.writeShellScript;
      writeBashBin = pkgs.writeShellScriptBin;
      writePython3 = name: _: text: pkgs.writeScript name "#!${pkgs.python3}/bin/python3\n${text}";
      writeJSON = name: value: pkgs.writeText name (builtins.toJSON value);
    };
    testers.runNixOSTest = import ../nixos/lib/testing.nix { inherit lib pkgs; };
    nixos = configuration: throw "pkgs.nixos is not part of the stand-in";
    appendOverlays = _: pkgs;
    extend = _: pkgs;
    buildPackages = pkgs;
    pkgsBuildHost = pkgs;
    emptyDirectory = runCommand "empty-directory" { } "mkdir $out";
    emptyFile = runCommand "empty-file" { } "touch $out";
    shadow = package "shadow" (import ./programs.nix).shadow { } "" // { shellPath = "/bin/nologin"; };
  };
in
pkgs
