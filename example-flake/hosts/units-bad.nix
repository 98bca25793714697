# The twin of units-good. Nix builds all of this without a word: no option is wrong, only systemd disagrees.
{ pkgs, lib, ... }:
let sleep = "${pkgs.coreutils}/bin/sleep infinity"; in
{
  imports = [ ./units-good.nix ];
  networking.hostName = lib.mkForce "units-bad";

  # breaks: UNIT-001 UNIT-002 (systemd refuses the timer: its only calendar cannot be parsed)
  systemd.timers.tidy.timerConfig.OnCalendar = lib.mkForce "dayly";
  # breaks: UNIT-002 SBX-D01 (two directives that do not exist)
  systemd.services.second.serviceConfig = { ProtectSytem = "strict"; PrivateTemp = true; };
  # breaks: UNIT-003 UNIT-004 (each waits for the other)
  systemd.services.chicken = { wantedBy = [ "multi-user.target" ]; before = [ "egg.service" ]; after = [ "egg.service" ]; requires = [ "egg.service" ]; serviceConfig.ExecStart = sleep; };
  systemd.services.egg = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = sleep; };
  # breaks: UNIT-005 (starts a service that is not there)
  systemd.timers.ghost = { wantedBy = [ "timers.target" ]; timerConfig = { OnBootSec = "1h"; Unit = "no-such.service"; }; };
  # breaks: UNIT-006 (systemd refuses the socket's service)
  systemd.sockets.refused = { wantedBy = [ "sockets.target" ]; listenStreams = [ "/run/refused.sock" ]; };
  systemd.services.refused = { serviceConfig.Type = "oneshot"; serviceConfig.Restart = "always"; serviceConfig.ExecStart = sleep; };
  # breaks: UNIT-008 (nothing starts it)
  systemd.services.forgotten.serviceConfig.ExecStart = sleep;
  # breaks: UNIT-009 (a user's unit with a directive that does not exist)
  systemd.user.services.hello.serviceConfig.Restrat = "always";
  # breaks: UNIT-010 (dies once the boot is over)
  systemd.services.fleeting = { wantedBy = [ "multi-user.target" ]; script = "sleep 8; exit 1"; serviceConfig.Restart = "always"; serviceConfig.RestartSec = 60; };
  # breaks: BOOT-006
  system.activationScripts.careless.text = "echo 'no key here' >&2; false";
  # breaks: UNIT-013 (a rule for a user who is not there, a setting that does not exist)
  systemd.tmpfiles.rules = [ "d /var/lib/careless 0750 nobody-here root -" ];
  services.logind.extraConfig = "KillUserProcess=yes";
}
