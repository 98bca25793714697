# Packages of which Debian's files alone are not what nixpkgs' are.
{ lib, final, prev, package, programs }:
let
  from = import ./packages.nix;
  # Names that Debian's `update-alternatives` makes, in bin/ of the package that provides them.
  links = names: lib.concatStrings (lib.mapAttrsToList (name: target: "ln -sf ${programs}/usr/${target} $out/bin/${name}\n") names);
in
{
  gawk = package "gawk" { debs = [ "gawk" ]; extra = links { awk = "bin/gawk"; }; };
  which = package "which" { debs = [ "debianutils" ]; extra = links { which = "bin/which.debianutils"; }; };
  netcat = package "netcat" { debs = [ "netcat-openbsd" ]; extra = links { nc = "bin/nc.openbsd"; }; main = "nc"; };
  iptables = package "iptables" {
    debs = [ "iptables" "libxtables12" ];
    # The folder of extensions is compiled in.
    extra = ''
      for family in iptables ip6tables; do
        for name in $family $family-save $family-restore; do
          rm -f $out/bin/$name
          printf '#!%s/usr/bin/bash\nXTABLES_LIBDIR=%s exec -a %s %s "$@"\n' ${programs} ${programs}/usr/lib/x86_64-linux-gnu/xtables \
            $name ${programs}/usr/sbin/xtables-nft-multi > $out/bin/$name
          chmod +x $out/bin/$name
        done
      done
    '';
  };
  bash = package "bash" { debs = [ "bash" ]; extra = "ln -s bash $out/bin/sh"; passthru.shellPath = "/bin/bash"; };
  bashInteractive = final.bash;
  bashNonInteractive = final.bash;
  coreutils-full = final.coreutils;
  dhcpcd = package "dhcpcd" { debs = from.dhcpcd; passthru.enablePrivSep = true; };
  shadow = package "shadow" { debs = from.shadow; passthru = { inherit (final) su; shellPath = "/bin/nologin"; }; };
  # For no platform, so that scripts are not checked: Haskell's packages take long to evaluate.
  shellcheck-minimal.compiler.meta.platforms = [ ];
  python3 = prev.python3 // package "python3" { debs = [ "python3-minimal" "python3.13-minimal" ]; passthru = { withPackages = _: final.python3; pythonVersion = "3.13"; }; };

  xorg = prev.xorg // { lndir = package "lndir" { debs = [ "xutils-dev" ]; }; xauth = package "xauth" { debs = [ "xauth" ]; }; };
  lesspipe = package "lesspipe" { debs = [ "less" ]; extra = "ln -s lesspipe $out/bin/lesspipe.sh"; };
  bash-completion = package "bash-completion" {
    debs = [ "bash-completion" ];
    extra = "ln -sfn ${programs}/etc/profile.d $out/etc/profile.d";
  };
  nix-bash-completions = final.emptyDirectory;
  cacert = lib.makeOverridable
    (_: final.runCommand "nss-cacert"
      {
        passthru = {
          hashed = final.emptyDirectory;
          unbundled = final.emptyDirectory;
          p11kit = final.runCommand "nss-cacert-p11kit" { } "mkdir -p $out/etc/ssl/trust-source";
        };
      } ''
      mkdir -p $out/etc/ssl/certs
      cat ${programs}/usr/share/ca-certificates/mozilla/*.crt > $out/etc/ssl/certs/ca-bundle.crt
      ln -s ca-bundle.crt $out/etc/ssl/certs/ca-certificates.crt
    '')
    { };
  dejavu_fonts = package "dejavu-fonts" { debs = [ "fonts-dejavu-core" ]; passthru.minimal = final.dejavu_fonts; };
  dbus = package "dbus" {
    debs = from.dbus;
    extra = "mkdir -p $out/libexec; ln -s ${programs}/usr/lib/dbus-1.0/dbus-daemon-launch-helper $out/libexec/";
  };
  nsncd = package "nsncd" { debs = [ "nsncd" ]; extra = "ln -s ${programs}/usr/libexec/nsncd $out/bin/nsncd"; };
  gnupatch = final.patch;
  nginxStable = package "nginx" {
    debs = [ "nginx" "nginx-common" ];
    extra = "mkdir $out/conf; ln -s ${programs}/etc/nginx/* $out/conf/";
    passthru.modules = [ ];
  };
  cron = package "cron" { debs = [ "cron" "cron-daemon-common" ]; };
  # Of one version, whichever the state version of a host asks for.
  postgresql = package "postgresql" {
    debs = [ "postgresql-17" "postgresql-client-17" ];
    extra = "ln -s ${programs}/usr/lib/postgresql/17/bin/* $out/bin/";
    passthru = { psqlSchema = "17"; withJIT = final.postgresql; withoutJIT = final.postgresql; withPackages = _: final.postgresql; };
  };
  postgresql_15 = final.postgresql;
  postgresql_16 = final.postgresql;
  prometheus-node-exporter = package "node_exporter" {
    debs = [ "prometheus-node-exporter" ];
    extra = "ln -s prometheus-node-exporter $out/bin/node_exporter";
  };
  mailcap = final.runCommand "mailcap" { } "mkdir -p $out/etc/nginx; ln -s ${programs}/etc/nginx/mime.types $out/etc/nginx/mime.types";
  # Judge and format nginx' configuration where it is built; nginx itself still reads it.
  gixy = final.writeShellScriptBin "gixy" "";
  nginx-config-formatter = final.writeShellScriptBin "nginxfmt" "";
  nettools = final.hostname-debian;
  su = package "su" { debs = [ "util-linux" ]; };
  perl =
    let
      perl = package "perl" {
        debs = [ "perl" "perl-base" ];
        passthru = {
          withPackages = _: perl;
          buildEnv = perl;
          libPrefix = "lib/perl5/site_perl";
        };
      };
    in
    perl;
  openssh = package "openssh" {
    debs = from.openssh;
    extra = "mkdir -p $out/libexec; for file in ${programs}/usr/lib/openssh/*; do ln -sf $file $out/libexec/; done";
    main = "ssh";
  };
  glibc = package "glibc" { debs = [ "libc6" "libc-bin" "libc6-dev" ]; };
  glibcLocales = lib.makeOverridable
    (_: final.runCommand "glibc-locales" { } ''
      mkdir -p $out/lib prefix/usr/lib/locale
      I18NPATH=${programs}/usr/share/i18n ${programs}/usr/bin/localedef --prefix=$PWD/prefix -i en_US -f UTF-8 en_US.UTF-8
      mv prefix/usr/lib/locale $out/lib/locale
    '')
    { };
  # As Nix's own units are; Debian has them in a package that a machine's administrator chooses.
  nix = package "nix" {
    debs = [ "nix-bin" ];
    extra = ''
      mkdir -p $out/lib/tmpfiles.d $out/lib/systemd/system
      echo 'd /nix/var/nix/daemon-socket 0755 root root - -' > $out/lib/tmpfiles.d/nix-daemon.conf
      cat > $out/lib/systemd/system/nix-daemon.socket <<'END'
      [Unit]
      Description=Nix Daemon Socket
      Before=multi-user.target
      RequiresMountsFor=/nix/store
      ConditionPathIsReadWrite=/nix/var/nix/daemon-socket

      [Socket]
      ListenStream=/nix/var/nix/daemon-socket/socket

      [Install]
      WantedBy=sockets.target
      END
      cat > $out/lib/systemd/system/nix-daemon.service <<END
      [Unit]
      Description=Nix Daemon
      RequiresMountsFor=/nix/store /nix/var /nix/var/nix/db
      ConditionPathIsReadWrite=/nix/var/nix/daemon-socket

      [Service]
      ExecStart=@${programs}/usr/bin/nix-daemon nix-daemon --daemon
      KillMode=process
      LimitNOFILE=1048576
      TasksMax=1048576

      [Install]
      WantedBy=multi-user.target
      END
      sed -i 's/^ *//' $out/lib/systemd/system/nix-daemon.*
    '';
  };
  linuxHeaders = final.glibc;

  # The compiler is one for all.
  pkgsStatic = final;
  gcc = final.stdenv.cc;

  # Of glibc's sources: names of variables that a loader ignores in a setuid program, in ld.so(8) "secure-execution mode".
  srcOnly = _: final.stdenvNoCC.mkDerivation {
    name = "glibc-source";
    dontUnpack = true;
    patchPhase = ''
      mkdir -p sysdeps/generic
      {
        echo '#define UNSECURE_ENVVARS \'
        for name in GCONV_PATH GETCONF_DIR GLIBC_TUNABLES HOSTALIASES LD_AUDIT LD_DEBUG LD_DEBUG_OUTPUT LD_DYNAMIC_WEAK LD_HWCAP_MASK \
          LD_LIBRARY_PATH LD_ORIGIN_PATH LD_PRELOAD LD_PROFILE LD_SHOW_AUXV LOCALDOMAIN LOCPATH MALLOC_TRACE NIS_PATH NLSPATH RESOLV_HOST_CONF \
          RES_OPTIONS TMPDIR TZDIR; do
          echo "  \"$name\\0\" \\"
        done
        echo
      } > sysdeps/generic/unsecvars.h
    '';
  };

  systemd = import ./systemd.nix { inherit lib final programs package; };
  systemdMinimal = final.systemd;
  udev = final.systemd;
  libudev0-shim = final.systemd;
}
