# Users and groups.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.users;
  nullable = type: mkOption { type = types.nullOr type; default = null; };
  flag = default: mkOption { type = types.bool; inherit default; };

  user = { name, config, ... }: {
    options = {
      enable = flag true;
      name = mkOption { type = types.passwdEntry types.str; };
      description = mkOption { type = types.passwdEntry types.str; default = ""; };
      uid = nullable types.int;
      isSystemUser = flag false;
      isNormalUser = flag false;
      group = mkOption { type = types.str; default = ""; };
      extraGroups = mkOption { type = types.listOf types.str; default = [ ]; };
      home = mkOption { type = types.passwdEntry types.path; default = "/var/empty"; };
      homeMode = mkOption { type = types.strMatching "[0-7]{1,5}"; default = "700"; };
      createHome = flag false;
      cryptHomeLuks = nullable types.str;
      pamMount = mkOption { type = types.attrs; default = { }; };
      shell = mkOption { type = types.nullOr (types.either types.shellPackage (types.passwdEntry types.path)); default = pkgs.shadow; };
      ignoreShellProgramCheck = flag false;
      useDefaultShell = flag false;
      subUidRanges = mkOption { type = types.listOf types.attrs; default = [ ]; };
      subGidRanges = mkOption { type = types.listOf types.attrs; default = [ ]; };
      autoSubUidGidRange = flag false;
      linger = flag false;
      hashedPassword = nullable types.str;
      password = nullable types.str;
      initialHashedPassword = nullable types.str;
      initialPassword = nullable types.str;
      hashedPasswordFile = nullable types.str;
      passwordFile = nullable types.str;
      expires = nullable types.str;
      packages = mkOption { type = types.listOf types.package; default = [ ]; };
      openssh.authorizedKeys = {
        keys = mkOption { type = types.listOf types.singleLineStr; default = [ ]; };
        keyFiles = mkOption { type = types.listOf types.path; default = [ ]; };
      };
      openssh.authorizedPrincipals = mkOption { type = types.listOf types.singleLineStr; default = [ ]; };
    };
    config = lib.mkMerge [
      { name = lib.mkDefault name; }
      (lib.mkIf config.isNormalUser {
        group = lib.mkDefault "users";
        createHome = lib.mkDefault true;
        home = lib.mkDefault "/home/${config.name}";
        homeMode = lib.mkDefault "700";
        useDefaultShell = lib.mkDefault true;
        isSystemUser = lib.mkDefault false;
      })
      (lib.mkIf config.useDefaultShell { shell = lib.mkDefault cfg.defaultUserShell; })
    ];
  };
  group = { name, config, ... }: {
    options = {
      name = mkOption { type = types.passwdEntry types.str; };
      gid = nullable types.int;
      members = mkOption { type = types.listOf (types.passwdEntry types.str); default = [ ]; };
    };
    config.name = lib.mkDefault name;
    config.members = lib.mapAttrsToList (_: u: u.name) (lib.filterAttrs (_: u: lib.elem config.name u.extraGroups) cfg.users);
  };

  enabled = lib.filterAttrs (_: u: u.enable) cfg.users;
  shellPath = u: if u.shell == null then "/bin/sh" else if u.shell ? shellPath then (if u.shell.shellPath == "/bin/nologin" then "${u.shell}/bin/nologin" else "/run/current-system/sw${u.shell.shellPath}") else toString u.shell;
  spec = pkgs.writeText "users-groups.json" (builtins.toJSON {
    inherit (cfg) mutableUsers;
    users = lib.mapAttrsToList
      (_: u: {
        inherit (u) name uid group description home homeMode createHome isSystemUser password hashedPassword initialPassword initialHashedPassword expires;
        hashedPasswordFile = if u.hashedPasswordFile != null then u.hashedPasswordFile else u.passwordFile;
        shell = shellPath u;
      })
      enabled;
    groups = lib.mapAttrsToList (_: g: { inherit (g) name gid members; }) cfg.groups;
  });
  id = table: name: config.ids.${table}.${name};
in
{
  options.users = {
    users = mkOption { default = { }; type = types.attrsOf (types.submodule user); };
    groups = mkOption { default = { }; type = types.attrsOf (types.submodule group); };
    mutableUsers = flag true;
    enforceIdUniqueness = flag true;
    allowNoPasswordLogin = flag false;
    manageLingering = flag true;
    defaultUserShell = mkOption { type = types.either types.path types.shellPackage; default = pkgs.bashInteractive; };
    defaultUserHome = mkOption { type = types.str; default = "/home"; };
    motd = mkOption { type = types.nullOr types.lines; default = null; };
    motdFile = mkOption { type = types.nullOr types.str; default = null; };
    extraUsers = mkOption { type = types.attrs; default = { }; visible = false; };
  };

  config = {
    users.users = {
      root = { uid = id "uids" "root"; description = "System administrator"; home = "/root"; homeMode = "700"; shell = lib.mkDefault cfg.defaultUserShell; group = "root"; initialHashedPassword = lib.mkDefault "!"; };
      nobody = { uid = id "uids" "nobody"; isSystemUser = true; description = "Unprivileged account (don't use!)"; group = "nogroup"; };
      messagebus = { uid = id "uids" "messagebus"; isSystemUser = true; description = "D-Bus system message bus daemon user"; home = "/run/dbus"; group = "messagebus"; };
      systemd-network = { uid = id "uids" "systemd-network"; isSystemUser = true; group = "systemd-network"; };
      systemd-resolve = { uid = id "uids" "systemd-resolve"; isSystemUser = true; group = "systemd-resolve"; };
      systemd-timesync = { uid = id "uids" "systemd-timesync"; isSystemUser = true; group = "systemd-timesync"; };
      systemd-oom = { isSystemUser = true; group = "systemd-oom"; };
      systemd-coredump = { isSystemUser = true; group = "systemd-coredump"; };
    };
    users.groups = lib.genAttrs
      [ "root" "wheel" "disk" "kmem" "tty" "floppy" "uucp" "lp" "cdrom" "tape" "audio" "video" "dialout" "nogroup" "users" "utmp" "adm" "input" "kvm" "render" "sgx" "shadow" "messagebus" "keys" "systemd-network" "systemd-resolve" "systemd-timesync" "systemd-journal" "systemd-journal-gateway" ]
      (name: { gid = id "gids" name; }) // { systemd-oom = { }; systemd-coredump = { }; };

    system.activationScripts.users = {
      deps = [ "debianPaths" ];
      text = ''
        install -m 0700 -d /root
        install -m 0755 -d /home
        mkdir -p /etc /var/lib/nixos
        ${pkgs.python3}/bin/python3 -IS ${../../scripts/update-users-groups.py} ${spec} ${pkgs.openssl}/bin/openssl
      '';
    };
    systemd.services.linger-users = lib.mkIf (cfg.manageLingering && lib.any (u: u.linger) (lib.attrValues enabled)) {
      wantedBy = [ "multi-user.target" ];
      after = [ "systemd-logind.service" ];
      requires = [ "systemd-logind.service" ];
      script = lib.concatMapStrings (u: lib.optionalString u.linger "${config.systemd.package}/bin/loginctl enable-linger ${u.name}\n") (lib.attrValues enabled);
      serviceConfig.Type = "oneshot";
    };
    system.activationScripts.groups = { text = ""; deps = [ "users" ]; };
    system.activationScripts.hashes = { text = ""; deps = [ "users" ]; };

    assertions = lib.flatten (lib.mapAttrsToList
      (name: u: [
        {
          assertion = (u.isSystemUser && !u.isNormalUser) || (!u.isSystemUser && u.isNormalUser) || u.uid == 0 || (u.uid != null && u.uid < 1000);
          message = "Exactly one of users.users.${u.name}.isSystemUser and users.users.${u.name}.isNormalUser must be set.\n";
        }
        { assertion = u.group != ""; message = "users.users.${u.name}.group is unset. This used to default to\nnogroup, but this is unsafe. For example you can create a group\nfor this user with:\nusers.users.${u.name}.group = \"${u.name}\";\nusers.groups.${u.name} = {};\n"; }
      ])
      cfg.users);
    environment.etc = lib.mapAttrs' (_: u: lib.nameValuePair "profiles/per-user/${u.name}" {
      source = pkgs.buildEnv { name = "user-environment"; paths = u.packages; };
    }) (lib.filterAttrs (_: u: u.packages != [ ]) enabled);
  };
}
