# Snippets that bring the running system in line with the configuration, in the order of their dependencies.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;

  path = lib.makeBinPath [ pkgs.coreutils pkgs.gnugrep pkgs.findutils pkgs.getent pkgs.shadow pkgs.util-linux pkgs.gnused pkgs.kmod pkgs.systemd pkgs.procps ];

  snippet = types.coercedTo types.str (text: { inherit text; deps = [ ]; supportsDryActivation = false; }) (types.submodule {
    options = {
      deps = mkOption { type = types.listOf types.str; default = [ ]; };
      text = mkOption { type = types.lines; };
      supportsDryActivation = mkOption { type = types.bool; default = false; };
    };
  });

  # Names in an order in which each comes after what it depends on.
  ordered = snippets:
    let
      visit = seen: name:
        if lib.elem name seen then seen
        else lib.foldl' visit seen (snippets.${name} or (throw "activation script `${name}' does not exist")).deps ++ [ name ];
    in
    lib.unique (lib.foldl' visit [ ] (lib.attrNames snippets));

  script = snippets: dry: ''
    #!${pkgs.runtimeShell}
    systemConfig='@out@'
    export PATH=/empty
    PATH=${path}:$PATH
    ${lib.optionalString (!dry) "NIXOS_ACTION=\${NIXOS_ACTION:-boot}"}
    _status=0
    trap "_status=1 _localstatus=\$?" ERR
    umask 0022
  '' + lib.concatMapStrings
    (name: ''
      #### Activation script snippet ${name}:
      _localstatus=0
      ${snippets.${name}.text}
      if (( _localstatus > 0 )); then
        printf "Activation script snippet '%s' failed (%s)\n" "${name}" "$_localstatus"
      fi
    '')
    (ordered snippets) + lib.optionalString (!dry) ''
    # Make this configuration the current configuration.
    ln -sfn "$(readlink -f "$systemConfig")" /run/current-system
  '' + ''
    exit $_status
  '';
  withoutScript = lib.filterAttrs (name: _: name != "script");
  dryOnly = snippets: lib.mapAttrs (_: s: if s.supportsDryActivation then s else s // { text = ":"; }) snippets;
in
{
  options.system = {
    activationScripts = mkOption {
      type = types.attrsOf snippet;
      default = { };
      apply = snippets: withoutScript snippets // { script = script (withoutScript snippets) false; };
    };
    userActivationScripts = mkOption { type = types.attrsOf snippet; default = { }; };
    dryActivationScript = mkOption { type = types.str; internal = true; readOnly = true; default = script (dryOnly (withoutScript config.system.activationScripts)) true; };
    activatable = mkOption { type = types.bool; default = true; };
    activatableSystemBuilderCommands = mkOption { type = types.lines; internal = true; default = ""; };
  };
  options.environment.usrbinenv = mkOption { type = types.nullOr types.path; default = "${pkgs.coreutils}/bin/env"; };
  options.environment.binsh = mkOption { type = types.path; visible = false; default = "${pkgs.bash}/bin/sh"; };

  config.system.activationScripts = {
    stdio = "";
    # What comes after it runs programs, and Debian's need their loader.
    specialfs = { text = ""; deps = [ "debianPaths" ]; };
    var = ''
      mkdir -m 1777 -p /var/tmp
      chmod 1777 /var/tmp
      mkdir -p /var/log /var/lib /var/cache /var/db /var/spool
      # Empty for good, as in NixOS: homes of system users lie there.
      mkdir -m 0555 -p /var/empty
      chmod -f 0555 /var/empty || true
      chown -f root:root /var/empty || true
      ${pkgs.e2fsprogs}/bin/chattr -f +i /var/empty || true
    '';
    usrbinenv = ''
      mkdir -p /usr/bin
      chmod 0755 /usr/bin
      ln -sfn ${config.environment.usrbinenv} /usr/bin/.env.tmp
      mv /usr/bin/.env.tmp /usr/bin/env
    '';
    binsh = ''
      mkdir -p /bin
      chmod 0755 /bin
      ln -sfn ${config.environment.binsh} /bin/.sh.tmp
      mv /bin/.sh.tmp /bin/sh
    '';
    # The stand-in's own: Debian's programs look for their loader, libraries and helpers where Debian has them.
    debianPaths = "${config.system.build.linkDebianPaths}";
  };

  config.system.build.linkDebianPaths = pkgs.writeShellScript "link-debian-paths" ''
    export PATH=${pkgs.busybox}/bin
    mkdir -p /usr/bin /usr/sbin
    for entry in lib lib64 share libexec; do
      ln -sfn ${config.system.build.debianPaths}/$entry /usr/.$entry.tmp
      mv -fT /usr/.$entry.tmp /usr/$entry
    done
    for entry in lib lib64; do
      ln -sfn /usr/$entry /.$entry.tmp
      mv -fT /.$entry.tmp /$entry
    done
    for program in ${config.system.build.debianPaths}/bin/*; do ln -sfn $program /usr/bin/; done
    for program in ${config.system.build.debianPaths}/sbin/*; do ln -sfn $program /usr/sbin/; done
    [ -e /sbin ] || ln -sfn usr/sbin /sbin
  '';

  config.system.build.debianPaths = pkgs.runCommand "debian-paths" { } ''
    mkdir -p $out/lib/systemd $out/bin $out/sbin
    for entry in $debian/usr/lib/*; do
      case ''${entry##*/} in
        systemd|modules|tmpfiles.d|sysctl.d|sysusers.d|modules-load.d|modprobe.d|environment.d|binfmt.d|udev) ;;
        *) ln -s $entry $out/lib/ ;;
      esac
    done
    for entry in $debian/usr/lib/systemd/*; do
      case ''${entry##*/} in
        system|user|*.conf.d|zram-generator.conf|oomd.conf|network|system-preset|user-preset|system-generators|portable|ntp-units.d) ;;
        *) ln -s $entry $out/lib/systemd/ ;;
      esac
    done
    mkdir -p $out/lib/udev $out/lib/systemd/system-generators
    for generator in fstab hibernate-resume ${lib.optionalString (!config.boot.isContainer) "cryptsetup"}; do
      ln -s $debian/usr/lib/systemd/system-generators/systemd-$generator-generator $out/lib/systemd/system-generators/
    done
    ln -s $debian/usr/lib/udev/* $out/lib/udev/
    # NixOS has the rules of a package where a module brings it.
    rm $out/lib/udev/rules.d
    mkdir $out/lib/udev/rules.d
    ln -s $debian/usr/lib/udev/rules.d/* $out/lib/udev/rules.d/
    ${lib.optionalString (!config.boot.swraid.enable) "rm -f $out/lib/udev/rules.d/*-md-*.rules"}
    ${lib.optionalString (!config.services.lvm.enable) "rm -f $out/lib/udev/rules.d/*-lvm.rules"}
    # Modules of the kernel that runs, whatever generation is current.
    ln -s /run/booted-system/kernel-modules/lib/modules $out/lib/modules
    ln -s $debian/usr/lib64 $out/lib64
    ln -s $debian/usr/share $out/share
    ln -s $debian/usr/libexec $out/libexec
    # Programs that systemd's own code calls by absolute path.
    for program in mount umount systemd-detect-virt systemd-tty-ask-password-agent systemd-run systemd-cryptsetup; do ln -s $debian/usr/bin/$program $out/bin/; done
    ln -s /run/wrappers/bin/unix_chkpwd $out/sbin/unix_chkpwd
    for program in swapon swapoff sulogin fsck fsck.ext4 fsck.xfs fsck.btrfs fsck.vfat modprobe nologin dmsetup lvm mdadm; do ln -s $debian/usr/sbin/$program $out/sbin/; done
  '';
}
