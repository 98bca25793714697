# OpenSSH's server.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.openssh;
  flag = default: mkOption { type = types.bool; inherit default; };
  nullable = type: mkOption { type = types.nullOr type; default = null; };
  setting = type: default: mkOption { type = types.nullOr type; inherit default; };
  words = types.listOf types.str;

  show = value: if value == true then "yes" else if value == false then "no" else if lib.isList value then lib.concatStringsSep "," value else toString value;
  spaced = lib.genAttrs [ "AllowUsers" "DenyUsers" "AllowGroups" "DenyGroups" ] (name: if cfg.settings.${name} == null then null else lib.concatStringsSep " " cfg.settings.${name});
  keyFile = u: pkgs.writeText "${u.name}-authorized_keys" (lib.concatMapStrings (k: k + "\n") u.openssh.authorizedKeys.keys + lib.concatMapStrings (f: builtins.readFile f + "\n") u.openssh.authorizedKeys.keyFiles);
  withKeys = lib.filterAttrs (_: u: u.openssh.authorizedKeys.keys ++ u.openssh.authorizedKeys.keyFiles != [ ]) config.users.users;

  configuration = ''
    UsePAM yes
    ${lib.concatMapStrings (p: "Port ${toString p}\n") cfg.ports}
    ${lib.concatMapStrings (a: "ListenAddress ${a.addr}${lib.optionalString (a.port != null) ":${toString a.port}"}\n") cfg.listenAddresses}
    ${lib.optionalString cfg.allowSFTP "Subsystem sftp ${cfg.sftpServerExecutable} ${lib.concatStringsSep " " cfg.sftpFlags}"}
    AuthorizedKeysFile ${toString cfg.authorizedKeysFiles}
    ${lib.concatMapStrings (k: "HostKey ${k.path}\n") cfg.hostKeys}
    ${lib.optionalString (cfg.banner != null) "Banner ${pkgs.writeText "ssh_banner" cfg.banner}"}
    ${lib.concatStrings (lib.mapAttrsToList (n: v: lib.optionalString (v != null) "${n} ${show v}\n") (cfg.settings // spaced))}
    ${cfg.extraConfig}
  '';

  service = inetd: {
    description = "SSH Daemon";
    wantedBy = lib.optional (!inetd) "multi-user.target";
    after = [ "network.target" ] ++ lib.optional inetd "sshd-keygen.service";
    stopIfChanged = false;
    path = [ pkgs.openssh pkgs.gawk ];
    environment.LD_LIBRARY_PATH = "/run/opengl-driver/lib";
    restartTriggers = lib.optional (!inetd) config.environment.etc."ssh/sshd_config".source;
    preStart = lib.mkIf (!inetd) keygen;
    serviceConfig = {
      ExecStart = (lib.optionalString inetd "-") + "${pkgs.openssh}/bin/sshd " + lib.optionalString inetd "-i " + "-D -f /etc/ssh/sshd_config";
      KillMode = "process";
    } // (if inetd then { StandardInput = "socket"; StandardError = "journal"; } else { Restart = "always"; Type = "simple"; RuntimeDirectory = "sshd"; });
  };
  keygen = lib.concatMapStrings
    (k: ''
      if ! [ -s "${k.path}" ]; then
        if ! [ -h "${k.path}" ]; then rm -f "${k.path}"; fi
        mkdir -p "$(dirname '${k.path}')"
        chmod 0755 "$(dirname '${k.path}')"
        ssh-keygen -t "${k.type}" ${lib.optionalString (k ? bits) "-b ${toString k.bits}"} ${lib.optionalString (k ? comment) "-C '${k.comment}'"} -f "${k.path}" -N ""
      fi
    '')
    cfg.hostKeys;
in
{
  options.services.openssh = {
    enable = flag false;
    package = mkOption { type = types.package; default = pkgs.openssh; };
    startWhenNeeded = flag false;
    allowSFTP = flag true;
    sftpServerExecutable = mkOption { type = types.str; default = "${pkgs.openssh}/libexec/sftp-server"; };
    sftpFlags = mkOption { type = words; default = [ ]; };
    ports = mkOption { type = types.listOf types.port; default = [ 22 ]; };
    openFirewall = flag true;
    listenAddresses = mkOption { type = types.listOf (types.submodule { options = { addr = nullable types.str; port = nullable types.int; }; }); default = [ ]; };
    hostKeys = mkOption {
      type = types.listOf types.attrs;
      default = [
        { type = "rsa"; bits = 4096; path = "/etc/ssh/ssh_host_rsa_key"; }
        { type = "ed25519"; path = "/etc/ssh/ssh_host_ed25519_key"; }
      ];
    };
    banner = nullable types.lines;
    authorizedKeysFiles = mkOption { type = words; default = [ ]; };
    authorizedKeysInHomedir = flag true;
    authorizedKeysCommand = mkOption { type = types.str; default = "none"; };
    authorizedKeysCommandUser = mkOption { type = types.str; default = "nobody"; };
    extraConfig = mkOption { type = types.lines; default = ""; };
    moduliFile = mkOption { type = types.path; default = "${pkgs.debian}/etc/ssh/moduli"; };
    settings = mkOption {
      default = { };
      type = types.submodule {
        freeformType = types.attrsOf (types.nullOr (types.oneOf [ types.bool types.int types.str words ]));
        options = {
          AuthorizedPrincipalsFile = setting types.str "none";
          LogLevel = setting (types.enum [ "QUIET" "FATAL" "ERROR" "INFO" "VERBOSE" "DEBUG" "DEBUG1" "DEBUG2" "DEBUG3" ]) "INFO";
          UsePAM = setting types.bool null;
          UseDns = setting types.bool false;
          X11Forwarding = setting types.bool false;
          PasswordAuthentication = setting types.bool true;
          PermitRootLogin = setting (types.enum [ "yes" "without-password" "prohibit-password" "forced-commands-only" "no" ]) "prohibit-password";
          KbdInteractiveAuthentication = setting types.bool true;
          GatewayPorts = setting types.str "no";
          KexAlgorithms = setting words [ "sntrup761x25519-sha512@openssh.com" "curve25519-sha256" "curve25519-sha256@libssh.org" "diffie-hellman-group-exchange-sha256" ];
          Macs = setting words [ "hmac-sha2-512-etm@openssh.com" "hmac-sha2-256-etm@openssh.com" "umac-128-etm@openssh.com" ];
          StrictModes = setting types.bool true;
          Ciphers = setting words [ "chacha20-poly1305@openssh.com" "aes256-gcm@openssh.com" "aes128-gcm@openssh.com" "aes256-ctr" "aes192-ctr" "aes128-ctr" ];
          AllowUsers = setting words null;
          DenyUsers = setting words null;
          AllowGroups = setting words null;
          DenyGroups = setting words null;
          PrintMotd = setting types.bool false;
        };
      };
    };
  };

  config = lib.mkIf cfg.enable {
    users.users.sshd = { isSystemUser = true; group = "sshd"; description = "SSH privilege separation user"; };
    users.groups.sshd = { };
    services.openssh.authorizedKeysFiles = lib.optional cfg.authorizedKeysInHomedir "%h/.ssh/authorized_keys" ++ [ "/etc/ssh/authorized_keys.d/%u" ];
    security.pam.services.sshd = { startSession = true; setLoginUid = true; unixAuth = cfg.settings.PasswordAuthentication == true; showMotd = true; };
    networking.firewall.allowedTCPPorts = lib.optionals cfg.openFirewall cfg.ports;
    environment.etc = {
      "ssh/sshd_config".text = configuration;
      "ssh/moduli".source = cfg.moduliFile;
    } // lib.mapAttrs' (_: u: lib.nameValuePair "ssh/authorized_keys.d/${u.name}" { mode = "0444"; source = "${keyFile u}"; }) withKeys;
    # Debian's sshd separates privileges in a folder of its own.
    systemd.tmpfiles.rules = [ "d /run/sshd 0755 root root -" ];
    systemd.services = if cfg.startWhenNeeded then {
      "sshd@" = service true;
      sshd-keygen = { description = "SSH Host Keys Generation"; path = [ pkgs.openssh ]; unitConfig.ConditionFileNotEmpty = map (k: "|!${k.path}") cfg.hostKeys; serviceConfig = { Type = "oneshot"; }; script = keygen; wantedBy = [ "multi-user.target" ]; };
    } else { sshd = service false; };
    systemd.sockets = lib.mkIf cfg.startWhenNeeded {
      sshd = {
        description = "SSH Socket";
        wantedBy = [ "sockets.target" ];
        socketConfig = { ListenStream = map toString cfg.ports; Accept = true; TriggerLimitIntervalSec = 0; };
      };
    };
    assertions = [{ assertion = cfg.settings.X11Forwarding -> true; message = ""; }];
  };
}
