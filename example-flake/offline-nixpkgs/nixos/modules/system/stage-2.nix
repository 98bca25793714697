# The system's own init: activate, then start systemd.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.boot = {
    postBootCommands = mkOption { type = types.lines; default = ""; };
    readOnlyNixStore = mkOption { type = types.bool; default = true; };
    nixStoreMountOpts = mkOption { type = types.listOf types.nonEmptyStr; default = [ "ro" "nodev" "nosuid" ]; };
    systemdExecutable = mkOption { type = types.str; default = "/run/current-system/systemd/lib/systemd/systemd"; };
    extraSystemdUnitPaths = mkOption { type = types.listOf types.str; default = [ ]; };
  };
  options.networking.resolvconf.enable = mkOption { type = types.bool; default = true; };

  config.system.build.bootStage2 = pkgs.writeScript "stage-2-init.sh" ''
    #!${pkgs.runtimeShell}
    systemConfig=@systemConfig@
    export HOME=/root PATH="${lib.makeBinPath [ pkgs.busybox ]}"

    # With systemd in stage 1 this prepares the root that it switches to.
    ${lib.optionalString (!config.boot.isContainer) ''
      if [ "''${IN_NIXOS_SYSTEMD_STAGE1:-}" != true ]; then
        echo
        echo -e "\e[1;32m<<< ${config.system.nixos.distroName} Stage 2 >>>\e[0m"
        echo
      fi
    ''}
    mountIfNeeded() {
      mountpoint -q "$3" 2>/dev/null && return
      mkdir -p "$3"
      mount -t "$1" -o "$4" "$2" "$3" || :
    }
    ${lib.optionalString (!config.boot.isContainer) ''
      [ "''${IN_NIXOS_SYSTEMD_STAGE1:-}" = true ] || mount -n -o remount,rw none / || :
      mkdir -p /proc /sys /dev
      [ -e /proc/1 ] || mount -t proc proc /proc
      [ -e /sys/kernel ] || mount -t sysfs sysfs /sys
      [ -c /dev/null ] || mount -t devtmpfs -o mode=0755 devtmpfs /dev
      for option in $(cat /proc/cmdline); do
        case $option in
          boot.debugtrace|debugtrace) set -x ;;
        esac
      done
    ''}
    mkdir -p /etc /root /home /tmp /run /var/log /nix/var/nix/gcroots /run/lock
    chmod 0755 / /etc /run
    chmod 0700 /root
    chmod 1777 /tmp
    mkdir -p -m 0755 /bin
    # In a container too, whose /run is nosuid (boot.specialFileSystems, which the activation mounts).
    mountIfNeeded tmpfs tmpfs /run/wrappers "nodev,mode=755,size=50%"
    ${lib.optionalString (!config.boot.isContainer) ''
      mountIfNeeded devpts devpts /dev/pts "nosuid,noexec,gid=3,mode=0620,ptmxmode=0666"
      mountIfNeeded tmpfs tmpfs /dev/shm "nosuid,nodev,strictatime,mode=1777,size=${config.boot.devShmSize}"
      mountIfNeeded tmpfs tmpfs /run/keys "nosuid,nodev,mode=750"
      chown 0:30000 /nix/store 2>/dev/null
      chmod 1775 /nix/store 2>/dev/null
      ${lib.optionalString config.boot.readOnlyNixStore ''
        case $(grep -o ' /nix/store [^ ]* [^ ]*' /proc/self/mounts | tail -n 1) in
          *" ro"|*" ro,"*) ;;
          *) mount --bind /nix/store /nix/store && mount -o remount,ro,bind /nix/store ;;
        esac
      ''}
    ''}
    # The activation is told to the console, and to the kernel's log or, without one, to a file.
    exec {logOutFd}>&1 {logErrFd}>&2
    if [ "''${IN_NIXOS_SYSTEMD_STAGE1:-}" = true ]; then
      :
    elif test -w /dev/kmsg; then
      exec > >(tee -i /proc/self/fd/"$logOutFd" | while read -r line; do
        if test -n "$line"; then
          echo "<7>stage-2-init: $line" > /dev/kmsg
        fi
      done) 2>&1
    else
      mkdir -p /run/log
      exec > >(tee -i /run/log/stage-2-init.log) 2>&1
    fi
    ${config.system.build.linkDebianPaths}
    echo "running activation script..."
    "$systemConfig/activate"

    ln -sfn "$systemConfig" /run/booted-system
    mkdir -p /nix/var/nix/gcroots
    ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system
    ln -sfn /run/current-system /nix/var/nix/gcroots/current-system

    ${config.boot.postBootCommands}

    [ "''${IN_NIXOS_SYSTEMD_STAGE1:-}" != true ] || exit 0
    exec 1>&$logOutFd 2>&$logErrFd
    exec {logOutFd}>&- {logErrFd}>&-
    echo "starting systemd..."
    exec env -i ${lib.optionalString config.boot.isContainer "container=systemd-nspawn container_uuid=\"\${container_uuid:-}\" \${NOTIFY_SOCKET:+NOTIFY_SOCKET=$NOTIFY_SOCKET} "}PATH=/run/current-system/systemd/bin TZDIR=/etc/zoneinfo ${config.boot.systemdExecutable} "$@"
  '';
}
