# PAM, sudo and what keeps the kernel closed.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  flag = default: mkOption { type = types.bool; inherit default; };
  cfg = config.security;
  modules = "${pkgs.linux-pam}/lib/security";

  service = { name, ... }: {
    options = {
      name = mkOption { type = types.str; default = name; };
      enable = flag true;
      unixAuth = flag true;
      rootOK = flag false;
      startSession = flag false;
      allowNullPassword = flag false;
      setLoginUid = flag false;
      showMotd = flag false;
      limits = mkOption { type = types.listOf types.attrs; default = [ ]; };
      text = mkOption { type = types.nullOr types.lines; default = null; };
    };
  };
  render = s: ''
    # Account management.
    account required ${modules}/pam_unix.so

    # Authentication management.
    ${lib.optionalString s.rootOK "auth sufficient ${modules}/pam_rootok.so"}
    ${lib.optionalString s.unixAuth "auth sufficient ${modules}/pam_unix.so ${lib.optionalString s.allowNullPassword "nullok "}likeauth try_first_pass"}
    auth required ${modules}/pam_deny.so

    # Password management.
    password sufficient ${modules}/pam_unix.so nullok yescrypt

    # Session management.
    session required ${modules}/pam_env.so conffile=/etc/pam/environment readenv=0
    session required ${modules}/pam_unix.so
    ${lib.optionalString s.setLoginUid "session ${if config.boot.isContainer then "optional" else "required"} ${modules}/pam_loginuid.so"}
    ${lib.optionalString s.startSession "session optional ${modules}/pam_systemd.so"}
  '';

  rule = types.submodule {
    options = {
      users = mkOption { type = types.listOf (types.either types.str types.int); default = [ ]; };
      groups = mkOption { type = types.listOf (types.either types.str types.int); default = [ ]; };
      host = mkOption { type = types.str; default = "ALL"; };
      runAs = mkOption { type = types.str; default = "ALL:ALL"; };
      commands = mkOption { type = types.listOf (types.either types.str (types.submodule { options = { command = mkOption { type = types.str; }; options = mkOption { type = types.listOf types.str; default = [ ]; }; }; })); default = [ ]; };
    };
  };
  commandText = c: if lib.isString c then c else "${lib.concatMapStrings (o: "${o}: ") c.options}${c.command}";
  ruleLines = r: lib.concatMapStrings (who: "${who} ${r.host}=(${r.runAs}) ${lib.concatMapStringsSep ", " commandText r.commands}\n")
    (map toString r.users ++ map (g: "%${toString g}") r.groups);
in
{
  options.security = {
    pam = {
      services = mkOption { type = types.attrsOf (types.submodule service); default = { }; };
      loginLimits = mkOption { type = types.listOf types.attrs; default = [ ]; };
      enableSSHAgentAuth = flag false;
      sshAgentAuth.enable = flag false;
      u2f.enable = flag false;
    };
    sudo = {
      enable = flag true;
      package = mkOption { type = types.package; default = pkgs.sudo; };
      wheelNeedsPassword = flag true;
      execWheelOnly = flag false;
      keepTerminfo = flag true;
      defaultOptions = mkOption { type = types.listOf types.str; default = [ "SETENV" ]; };
      extraRules = mkOption { type = types.listOf rule; default = [ ]; };
      extraConfig = mkOption { type = types.lines; default = ""; };
      configFile = mkOption { type = types.lines; };
    };
    sudo-rs.enable = flag false;
    rtkit.enable = flag false;
    protectKernelImage = flag false;
    lockKernelModules = flag false;
    allowUserNamespaces = flag true;
    unprivilegedUsernsClone = flag false;
    allowSimultaneousMultithreading = flag true;
    forcePageTableIsolation = flag false;
    virtualisation.flushL1DataCache = mkOption { type = types.nullOr types.str; default = null; };
    pki.certificateFiles = mkOption { type = types.listOf types.path; default = [ ]; };
    pki.certificates = mkOption { type = types.listOf types.str; default = [ ]; };
    tpm2.enable = flag false;
  };

  config = {
    security.pam.services = {
      login = { startSession = true; setLoginUid = true; allowNullPassword = true; };
      su = { rootOK = true; };
      "su-l" = { rootOK = true; };
      runuser = { rootOK = true; unixAuth = false; };
      "runuser-l" = { rootOK = true; unixAuth = false; };
      sudo = lib.mkIf cfg.sudo.enable { };
      passwd = { };
      chsh = { rootOK = true; };
      chfn = { rootOK = true; };
      chpasswd = { rootOK = true; };
      useradd = { rootOK = true; };
      groupadd = { rootOK = true; };
      systemd-user = { startSession = true; setLoginUid = true; };
      other = { text = lib.concatMapStrings (k: "${k} required ${modules}/pam_warn.so\n${k} required ${modules}/pam_deny.so\n") [ "auth" "account" "password" "session" ]; };
    };
    environment.etc = lib.mapAttrs' (_: s: lib.nameValuePair "pam.d/${s.name}" { text = if s.text != null then s.text else render s; }) (lib.filterAttrs (_: s: s.enable) cfg.pam.services) // {
      "pam/environment".text = ''
        PATH   DEFAULT="${config.security.wrapperDir}:@{HOME}/.nix-profile/bin:/etc/profiles/per-user/@{PAM_USER}/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin"
      '';
      "security/limits.conf".text = "";
      sudoers = lib.mkIf cfg.sudo.enable { text = cfg.sudo.configFile; mode = "0440"; };
    };
    security.sudo.extraRules = [
      { groups = [ "wheel" ]; commands = [{ command = "ALL"; options = lib.optional (!cfg.sudo.wheelNeedsPassword) "NOPASSWD" ++ cfg.sudo.defaultOptions; }]; }
    ];
    security.sudo.configFile = lib.mkDefault ''
      # Don't edit this file. Set the NixOS options ‘security.sudo.configFile’
      # or ‘security.sudo.extraRules’ instead.
      # Keep terminfo database for root and %wheel.
      Defaults:root,%wheel env_keep+=TERMINFO_DIRS
      Defaults:root,%wheel env_keep+=TERMINFO

      # "root" is allowed to do anything.
      root        ALL=(ALL:ALL) SETENV: ALL

      ${lib.concatMapStrings ruleLines cfg.sudo.extraRules}
      ${cfg.sudo.extraConfig}
    '';
    security.wrappers = lib.mkIf cfg.sudo.enable {
      sudo = { setuid = true; owner = "root"; group = if cfg.sudo.execWheelOnly then "wheel" else "root"; source = "${pkgs.sudo}/bin/sudo"; permissions = if cfg.sudo.execWheelOnly then "u+rx,g+x" else "u+rx,g+x,o+x"; };
      sudoedit = { setuid = true; owner = "root"; group = if cfg.sudo.execWheelOnly then "wheel" else "root"; source = "${pkgs.sudo}/bin/sudoedit"; permissions = if cfg.sudo.execWheelOnly then "u+rx,g+x" else "u+rx,g+x,o+x"; };
    };
    environment.systemPackages = lib.optional cfg.sudo.enable pkgs.sudo;
    boot.kernelParams = lib.optionals cfg.protectKernelImage [ "nohibernate" ] ++ lib.optional cfg.forcePageTableIsolation "pti=on" ++ lib.optional (!cfg.allowSimultaneousMultithreading) "nosmt";
    boot.kernel.sysctl = lib.mkMerge [
      (lib.mkIf cfg.protectKernelImage { "kernel.kexec_load_disabled" = lib.mkDefault true; })
      (lib.mkIf (!cfg.allowUserNamespaces) { "user.max_user_namespaces" = 0; })
      (lib.mkIf cfg.unprivilegedUsernsClone { "kernel.unprivileged_userns_clone" = lib.mkDefault true; })
    ];
    systemd.services.disable-kernel-module-loading = lib.mkIf cfg.lockKernelModules {
      description = "Disable kernel module loading";
      wantedBy = [ "multi-user.target" ];
      after = [ "firewall.service" "systemd-modules-load.service" "systemd-udev-settle.service" ] ++ map (name: "${name}.service") [ ];
      unitConfig.ConditionPathIsReadWrite = "/proc/sys/kernel";
      serviceConfig = { Type = "oneshot"; RemainAfterExit = true; TimeoutSec = 180; };
      script = "echo -n 1 >/proc/sys/kernel/modules_disabled";
    };
  };
}
