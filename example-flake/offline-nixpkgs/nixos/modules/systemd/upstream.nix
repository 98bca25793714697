# Which of systemd's own units a NixOS system has.
{ config, lib, ... }:
let
  cfg = config.systemd;
  container = config.boot.isContainer;
  unwanted = cfg.suppressedSystemUnits;
in
{
  config.systemd.upstreamUnits = lib.filter (unit: !(lib.elem unit unwanted)) ([
    "basic.target" "sysinit.target" "sockets.target" "exit.target" "systemd-exit.service" "graphical.target" "multi-user.target" "network.target" "network-pre.target" "network-online.target"
    "nss-lookup.target" "nss-user-lookup.target" "time-sync.target" "time-set.target" "first-boot-complete.target" "boot-complete.target"
    "systemd-ask-password-console.path" "systemd-ask-password-console.service" "systemd-ask-password-wall.path" "systemd-ask-password-wall.service"
    "rescue.target" "rescue.service" "systemd-journald.socket" "systemd-journald-dev-log.socket" "systemd-journald.service" "systemd-journald@.service" "systemd-journald@.socket" "systemd-journald-varlink@.socket"
    "systemd-journal-flush.service" "systemd-journal-catalog-update.service" "systemd-update-done.service" "systemd-sysctl.service" "systemd-random-seed.service"
    "systemd-user-sessions.service" "user.slice" "user@.service" "user-runtime-dir@.service" "user-.slice.d" "machine.slice" "systemd-logind.service" "dbus-org.freedesktop.login1.service" "autovt@.service"
    "local-fs.target" "local-fs-pre.target" "remote-fs.target" "remote-fs-pre.target" "swap.target" "umount.target" "paths.target" "slices.target" "timers.target" "printer.target" "sound.target" "bluetooth.target" "smartcard.target"
    "emergency.target" "emergency.service" "getty.target" "getty-pre.target" "getty@.service" "serial-getty@.service" "console-getty.service" "container-getty@.service" "debug-shell.service"
    "shutdown.target" "poweroff.target" "halt.target" "reboot.target" "kexec.target" "soft-reboot.target" "final.target" "systemd-poweroff.service" "systemd-halt.service" "systemd-reboot.service" "systemd-kexec.service" "systemd-soft-reboot.service"
    "sleep.target" "suspend.target" "hibernate.target" "sigpwr.target" "ctrl-alt-del.target" "systemd-tmpfiles-setup.service" "systemd-tmpfiles-clean.service" "systemd-tmpfiles-clean.timer"
    "systemd-hostnamed.service" "systemd-hostnamed.socket" "dbus-org.freedesktop.hostname1.service" "systemd-timedated.service" "dbus-org.freedesktop.timedate1.service" "systemd-localed.service" "dbus-org.freedesktop.locale1.service"
    "systemd-machined.service" "machines.target" "systemd-coredump.socket" "systemd-coredump@.service" "modprobe@.service" "kmod-static-nodes.service" "systemd-modules-load.service"
    "systemd-tmpfiles-setup-dev.service" "systemd-tmpfiles-setup-dev-early.service" "systemd-fsck@.service" "systemd-fsck-root.service" "systemd-remount-fs.service"
    "dev-hugepages.mount" "dev-mqueue.mount" "sys-kernel-config.mount" "sys-kernel-debug.mount" "sys-kernel-tracing.mount" "sys-fs-fuse-connections.mount" "proc-sys-fs-binfmt_misc.mount" "proc-sys-fs-binfmt_misc.automount" "systemd-binfmt.service"
    "syslog.socket" "systemd-boot-random-seed.service" "systemd-pstore.service" "systemd-growfs@.service" "systemd-growfs-root.service" "systemd-creds.socket" "systemd-creds@.service"
    "dbus.service" "dbus.socket"
  ] ++ lib.optionals (!container) [
    "systemd-udevd-control.socket" "systemd-udevd-kernel.socket" "systemd-udevd.service" "systemd-udev-settle.service" "systemd-udev-trigger.service" "systemd-backlight@.service" "systemd-rfkill.service" "systemd-rfkill.socket"
  ] ++ lib.optional config.systemd.journaldAudit "systemd-journald-audit.socket" ++ cfg.additionalUpstreamSystemUnits);
  config.systemd.upstreamWants = [ "sysinit.target.wants" "sockets.target.wants" "local-fs.target.wants" "multi-user.target.wants" "timers.target.wants" "machines.target.wants" ];
  options.systemd.journaldAudit = lib.mkOption { type = lib.types.bool; internal = true; default = false; };
}
