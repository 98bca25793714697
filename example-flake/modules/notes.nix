# A small service of the host's own, locked into a sandbox: it keeps notes, and tells who asks by UDP where it is.
{ config, lib, pkgs, ... }:
{
  systemd.services.notes = {
    description = "Notes";
    wantedBy = [ "multi-user.target" ];
    after = [ "network.target" ];
    environment = {
      NOTES_PORT = "8080";
      NOTES_DISCOVERY_PORT = "8081";
    };
    serviceConfig = {
      ExecStart = "${pkgs.python3}/bin/python3 -IS ${./notes.py}";
      Restart = "on-failure";
      DynamicUser = true;
      StateDirectory = "notes";
      UMask = "0077";

      NoNewPrivileges = true;
      CapabilityBoundingSet = "";
      AmbientCapabilities = "";
      LockPersonality = true;
      MemoryDenyWriteExecute = true;
      PrivateDevices = true;
      PrivateTmp = true;
      PrivateUsers = true;
      ProcSubset = "pid";
      ProtectClock = true;
      ProtectControlGroups = true;
      ProtectHome = true;
      ProtectHostname = true;
      ProtectKernelLogs = true;
      ProtectKernelModules = true;
      ProtectKernelTunables = true;
      ProtectProc = "invisible";
      ProtectSystem = "strict";
      RemoveIPC = true;
      RestrictAddressFamilies = [ "AF_INET" "AF_INET6" ];
      RestrictNamespaces = true;
      RestrictRealtime = true;
      RestrictSUIDSGID = true;
      SystemCallArchitectures = "native";
      SystemCallErrorNumber = "EPERM";
      SystemCallFilter = [ "@system-service" "~@privileged" "~@resources" ];
    };
  };
}
