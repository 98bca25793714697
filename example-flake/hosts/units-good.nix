# Units of every kind, all of them well: the good twin of units-bad.
{ pkgs, ... }:
let sleep = "${pkgs.coreutils}/bin/sleep infinity"; in
{
  boot.isContainer = true;
  networking.hostName = "units-good";
  system.stateVersion = "24.05";

  systemd.services.first = { wantedBy = [ "multi-user.target" ]; before = [ "second.service" ]; serviceConfig.ExecStart = sleep; };
  systemd.services.second = { wantedBy = [ "multi-user.target" ]; serviceConfig = { ExecStart = sleep; ProtectSystem = "strict"; PrivateTmp = true; }; };
  # Skipped as declared: nothing is wrong with it.
  systemd.services.elsewhere = { wantedBy = [ "multi-user.target" ]; unitConfig.ConditionPathExists = "/nowhere"; serviceConfig.ExecStart = sleep; };
  # Does its work and ends, though its type says that it stays.
  systemd.services.brief = { wantedBy = [ "multi-user.target" ]; script = "true"; };
  systemd.services.tidy = { script = "true"; serviceConfig.Type = "oneshot"; startAt = "daily"; };
  systemd.services.answer = { serviceConfig.ExecStart = sleep; };
  systemd.sockets.answer = { wantedBy = [ "sockets.target" ]; listenStreams = [ "/run/answer.sock" ]; };
  systemd.user.services.hello = { wantedBy = [ "default.target" ]; serviceConfig.ExecStart = sleep; };
}
