{ lib, pkgs, ... }:
let
  # breaks: FLK-009 [source-scan] (empty here, something else on the next machine)
  home = builtins.getEnv "HOME";
  # breaks: FLK-010 [source-scan] (whatever the server sends today)
  motd = pkgs.fetchurl { url = "https://example.org/motd"; };
in
{
  boot.isContainer = true;
  system.stateVersion = "22.05";
  networking.hostName = "stale";
  # breaks: FLK-017 [source-scan] (no derivation has looked at the script)
  systemd.services.report.serviceConfig.ExecStart = "${pkgs.bash}/bin/bash ${./report.sh}";
  # breaks: SEC-016 [source-scan] (in the history of the repository for good)
  systemd.services.report.environment.DATABASE_URL = "postgresql://report:tr0ub4dor-and-three@db.internal/report";
  environment.etc = lib.mkIf (home != "") { motd.source = motd; };
}
