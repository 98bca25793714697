# The NATS messaging server.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.nats;
  format = pkgs.formats.json { };
  file = format.generate "nats.conf" cfg.settings;
in
{
  options.services.nats = {
    enable = mkOption { type = types.bool; default = false; };
    jetstream = mkOption { type = types.bool; default = false; };
    user = mkOption { type = types.str; default = "nats"; };
    group = mkOption { type = types.str; default = "nats"; };
    serverName = mkOption { type = types.str; default = "nats"; };
    validateConfig = mkOption { type = types.bool; default = true; };
    port = mkOption { type = types.port; default = 4222; };
    dataDir = mkOption { type = types.path; default = "/var/lib/nats"; };
    settings = mkOption { default = { }; inherit (format) type; };
  };

  config = lib.mkIf cfg.enable {
    services.nats.settings = { server_name = cfg.serverName; inherit (cfg) port; jetstream = lib.optionalAttrs cfg.jetstream { store_dir = cfg.dataDir; }; };
    systemd.services.nats = {
      description = "NATS messaging system";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      serviceConfig = lib.mkMerge [
        (lib.mkIf (cfg.dataDir == "/var/lib/nats") { StateDirectory = "nats"; StateDirectoryMode = "0750"; })
        (import ./hardening.nix)
        {
          Type = "simple";
          ExecStart = "${pkgs.nats-server}/bin/nats-server -c ${file}";
          ExecReload = "${pkgs.util-linux}/bin/kill -HUP $MAINPID";
          ExecStop = "${pkgs.util-linux}/bin/kill -SIGINT $MAINPID";
          Restart = "on-failure";
          User = cfg.user;
          Group = cfg.group;
          LimitNOFILE = 800000;
          CapabilityBoundingSet = "";
          PrivateUsers = true;
          ProcSubset = "pid";
          ProtectProc = "invisible";
          ReadWritePaths = [ cfg.dataDir ];
          RestrictAddressFamilies = [ "AF_INET" "AF_INET6" ];
          SystemCallFilter = [ "@system-service" "~@privileged" ];
        }
      ];
    };
    users.users = lib.mkIf (cfg.user == "nats") { nats = { description = "NATS daemon user"; isSystemUser = true; group = cfg.group; home = cfg.dataDir; }; };
    users.groups = lib.mkIf (cfg.group == "nats") { nats = { }; };
  };
}
