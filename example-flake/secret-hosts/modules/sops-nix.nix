# A model of the NixOS module of sops-nix: its options with their defaults, its activation snippets in their order, its manifest.
# Left out: gnupg, the unit that replaces the snippets where systemd makes the users, and the check of the manifest at build time.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.sops;
  option = type: default: mkOption { inherit type default; };

  ownership = config: {
    mode = option types.str "0400";
    owner = option (types.nullOr types.str) null;
    uid = option (types.nullOr types.int) 0;
    group = option (types.nullOr types.str) (if config.owner == null then null else lib.getAttr config.owner (lib.mapAttrs (_: u: u.group) users));
    gid = option (types.nullOr types.int) 0;
    restartUnits = option (types.listOf types.str) [ ];
    reloadUnits = option (types.listOf types.str) [ ];
  };
  users = config.users.users;

  secret = types.submodule ({ config, name, ... }: {
    options = ownership config // {
      name = option types.str name;
      key = option types.str (if cfg.defaultSopsKey != null then cfg.defaultSopsKey else name);
      path = option types.str "/run/secrets${lib.optionalString config.neededForUsers "-for-users"}/${config.name}";
      format = option (types.enum [ "yaml" "json" "binary" "dotenv" "ini" ]) cfg.defaultSopsFormat;
      sopsFile = mkOption { type = types.path; };
      sopsFileHash = mkOption { type = types.str; readOnly = true; };
      neededForUsers = option types.bool false;
    };
    config = {
      sopsFile = lib.mkOptionDefault cfg.defaultSopsFile;
      sopsFileHash = lib.mkOptionDefault (lib.optionalString cfg.validateSopsFiles "${builtins.hashFile "sha256" config.sopsFile}");
    };
  });
  template = types.submodule ({ config, name, ... }: {
    options = ownership config // {
      name = option types.str name;
      path = option types.str "/run/secrets/rendered/${config.name}";
      content = option types.lines "";
      file = option types.path (pkgs.writeText name config.content);
    };
  });

  forUsers = lib.filterAttrs (_: s: s.neededForUsers) cfg.secrets;
  regular = lib.filterAttrs (_: s: !s.neededForUsers) cfg.secrets;
  manifest = suffix: secrets: templates: directory: pkgs.writeText "manifest${suffix}.json" (builtins.toJSON {
    secrets = lib.attrValues secrets;
    templates = lib.attrValues templates;
    secretsMountPoint = "${directory}.d";
    symlinkPath = directory;
    inherit (cfg) keepGenerations useTmpfs;
    ageKeyFile = cfg.age.keyFile;
    ageSshKeyPaths = cfg.age.sshKeyPaths;
    placeholderBySecretName = cfg.placeholder;
  });
  install = flags: manifest: ''
    ${cfg.package}/bin/sops-install-secrets ${flags} ${manifest}
  '';
in
{
  options.sops = {
    secrets = option (types.attrsOf secret) { };
    templates = option (types.attrsOf template) { };
    placeholder = option (types.attrsOf types.str) { };
    defaultSopsFile = mkOption { type = types.path; };
    defaultSopsFormat = option types.str "yaml";
    defaultSopsKey = option (types.nullOr types.str) null;
    validateSopsFiles = option types.bool true;
    keepGenerations = option types.int 1;
    useTmpfs = option types.bool false;
    package = option types.package (pkgs.runCommand "sops-install-secrets-model" { } ''
      mkdir -p $out/bin
      {
        echo "#!${pkgs.bash}/bin/bash"
        echo "AGE=${config.age.ageBin} exec ${pkgs.python3}/bin/python3 -I ${./sops-install-secrets.py} \"\$@\""
      } > $out/bin/sops-install-secrets
      chmod +x $out/bin/sops-install-secrets
    '');
    age = {
      keyFile = option (types.nullOr types.str) null;
      generateKey = option types.bool false;
      sshKeyPaths = option (types.listOf types.path) [ ];
    };
    gnupg = {
      home = option (types.nullOr types.str) null;
      sshKeyPaths = option (types.listOf types.path) [ ];
    };
  };
  config = {
    sops.placeholder = lib.mkIf (cfg.templates != { }) (lib.mapAttrs (name: _: lib.mkDefault "<SOPS:${builtins.hashString "sha256" name}:PLACEHOLDER>") cfg.secrets);
    assertions = lib.optional (cfg.secrets != { }) {
      assertion = cfg.age.keyFile != null || cfg.age.sshKeyPaths != [ ];
      message = "No key source configured for sops";
    };
    system.activationScripts = lib.mkMerge [
      (lib.mkIf (regular != { }) {
        setupSecrets = { deps = [ "specialfs" "users" "groups" ]; text = install "" (manifest "" regular cfg.templates "/run/secrets"); supportsDryActivation = true; };
      })
      (lib.mkIf (forUsers != { }) {
        setupSecretsForUsers = { deps = [ "specialfs" ]; text = install "-ignore-passwd" (manifest "-for-users" forUsers { } "/run/secrets-for-users"); supportsDryActivation = true; };
        users.deps = [ "setupSecretsForUsers" ];
      })
    ];
  };
}
