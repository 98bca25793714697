# Each host is one layout of secrets; `secrets/` is written by the tests, encrypted for a key that nobody keeps.
{
  sops-yaml = { config, readerOf, ... }: {
    networking.hostName = "sops-yaml";
    sops.defaultSopsFile = ./secrets/all.yaml;
    sops.age.keyFile = "/var/lib/sops-nix/key.txt";
    sops.secrets.api-token = { owner = "app"; mode = "0440"; restartUnits = [ "keeper.service" ]; };
    sops.secrets."nested/deep" = { owner = "app"; path = "/etc/app/deep"; };
    systemd.services.reader = readerOf config.sops.secrets.api-token.path;
    # Its own secret in its own environment is nobody else's business.
    systemd.services.exporter = { wantedBy = [ "multi-user.target" ]; script = "export TOKEN=$(cat ${config.sops.secrets.api-token.path}); exec sleep infinity"; };
    systemd.services.keeper = { wantedBy = [ "multi-user.target" ]; script = "test -s ${config.sops.secrets.api-token.path}; exec sleep infinity"; };
  };
  sops-dotenv = { config, ... }: {
    networking.hostName = "sops-dotenv";
    sops.age.sshKeyPaths = [ "/etc/ssh/ssh_host_ed25519_key" ];
    sops.secrets.app-env = { sopsFile = ./secrets/app.env; format = "dotenv"; };
    systemd.services.app = {
      wantedBy = [ "multi-user.target" ];
      script = ''test -n "$DB_PASSWORD" && test -n "$API_KEY" && exec sleep infinity'';
      serviceConfig = { EnvironmentFile = config.sops.secrets.app-env.path; User = "app"; };
    };
  };
  sops-json-binary = { config, readerOf, pkgs, ... }: {
    networking.hostName = "sops-json-binary";
    sops.age.keyFile = "/var/lib/sops-nix/key.txt";
    sops.secrets.client = { sopsFile = ./secrets/all.json; format = "json"; owner = "app"; };
    sops.secrets.blob = { sopsFile = ./secrets/blob.bin; format = "binary"; owner = "app"; };
    sops.secrets.conf = { sopsFile = ./secrets/app.ini; format = "ini"; owner = "app"; };
    systemd.services.reader = readerOf config.sops.secrets.client.path;
    systemd.services.blob = readerOf config.sops.secrets.blob.path;
    systemd.services.conf = { wantedBy = [ "multi-user.target" ]; serviceConfig = { Type = "oneshot"; RemainAfterExit = true; ExecStart = "${pkgs.gnugrep}/bin/grep -q ^user ${config.sops.secrets.conf.path}"; }; };
  };
  sops-templates = { config, readerOf, pkgs, ... }: {
    networking.hostName = "sops-templates";
    sops.defaultSopsFile = ./secrets/all.yaml;
    sops.age.keyFile = "/var/lib/sops-nix/key.txt";
    sops.secrets.api-token = { };
    sops.secrets.alice-password = { neededForUsers = true; };
    sops.templates."app.conf" = { content = "token = ${config.sops.placeholder.api-token}\n"; owner = "app"; };
    users.users.alice = { isNormalUser = true; hashedPasswordFile = config.sops.secrets.alice-password.path; };
    systemd.services.reader = readerOf config.sops.templates."app.conf".path;
    sops.templates."app.env".content = "TOKEN=${config.sops.placeholder.api-token}\n";
    systemd.services.app = { wantedBy = [ "multi-user.target" ]; script = "test -n \"$TOKEN\" && exec sleep infinity"; serviceConfig.EnvironmentFile = config.sops.templates."app.env".path; };
  };
  agenix = { config, readerOf, ... }: {
    networking.hostName = "agenix";
    age.identityPaths = [ "/etc/ssh/ssh_host_ed25519_key" ];
    age.secrets.token = { file = ./secrets/token.age; owner = "app"; group = "app"; };
    age.secrets.alice.file = ./secrets/alice.age;
    users.users.alice = { isNormalUser = true; hashedPasswordFile = config.age.secrets.alice.path; };
    systemd.services.reader = readerOf config.age.secrets.token.path;
  };
  agenix-moved = { config, readerOf, ... }: {
    networking.hostName = "agenix-moved";
    age.identityPaths = [ "/persist/etc/ssh/ssh_host_ed25519_key" ];
    age.secrets.token = { file = ./secrets/token.age; owner = "app"; group = "app"; mode = "0440"; symlink = false; path = "/var/lib/app/token"; };
    systemd.services.reader = readerOf config.age.secrets.token.path;
  };
  plain-files = { ... }: {
    networking.hostName = "plain-files";
    users.users.alice = { isNormalUser = true; hashedPasswordFile = "/etc/nixos/secrets/alice"; };
    systemd.services.app = {
      wantedBy = [ "multi-user.target" ];
      script = ''test -n "$API_KEY" && test -s "$CREDENTIALS_DIRECTORY/token" && exec sleep infinity'';
      serviceConfig = { EnvironmentFile = "/etc/nixos/secrets/app.env"; LoadCredential = [ "token:/etc/nixos/secrets/token" ]; User = "app"; };
    };
  };
  credentials = { config, pkgs, ... }: {
    networking.hostName = "credentials";
    sops.defaultSopsFile = ./secrets/all.yaml;
    sops.age.keyFile = "/var/lib/sops-nix/key.txt";
    sops.secrets.api-token = { };
    systemd.services.app = {
      wantedBy = [ "multi-user.target" ];
      script = ''test -s "$CREDENTIALS_DIRECTORY/token" && exec sleep infinity'';
      serviceConfig = { LoadCredential = [ "token:${config.sops.secrets.api-token.path}" ]; DynamicUser = true; };
    };
    systemd.services.sealed = {
      wantedBy = [ "multi-user.target" ];
      script = "exec sleep infinity";
      serviceConfig.SetCredentialEncrypted = [ "key: Whxqht+dQJax1aZeCGLxmiAAAAABAAAADAAAABAAAAA=" ];
    };
  };
  # As a VM: what comes with the machine is there before its first activation.
  sops-vm = { config, readerOf, ... }: {
    networking.hostName = "sops-vm";
    boot.isContainer = false;
    fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
    boot.loader.grub.device = "/dev/vda";
    virtualisation.vmVariant.virtualisation = { memorySize = 1024; graphics = false; };
    sops.defaultSopsFile = ./secrets/all.yaml;
    sops.age.keyFile = "/var/lib/sops-nix/key.txt";
    sops.secrets.api-token = { owner = "app"; };
    sops.secrets.alice-password = { neededForUsers = true; };
    users.users.alice = { isNormalUser = true; hashedPasswordFile = config.sops.secrets.alice-password.path; };
    age.identityPaths = [ "/etc/ssh/ssh_host_ed25519_key" ];
    age.secrets.token = { file = ./secrets/token.age; owner = "app"; group = "app"; };
    systemd.services.reader = readerOf config.sops.secrets.api-token.path;
    systemd.services.age-reader = readerOf config.age.secrets.token.path;
  };
  # Each line beside the first three breaks one thing.
  leaky = { config, pkgs, ... }: {
    networking.hostName = "leaky";
    sops.defaultSopsFile = ./secrets/all.yaml;
    sops.age.keyFile = "/var/lib/sops-nix/key.txt";
    sops.secrets.api-token = { owner = "app"; mode = "0400"; restartUnits = [ "stubborn.service" ]; };
    # Is there before its secret is, and is not restarted for a new one.
    systemd.services.early = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "${pkgs.coreutils}/bin/tail -F ${config.sops.secrets.api-token.path}"; };
    systemd.services.late = { wantedBy = [ "multi-user.target" ]; after = [ "early.service" ]; serviceConfig = { Type = "oneshot"; RemainAfterExit = true; }; script = "sleep 3; touch ${config.sops.secrets.api-token.path}"; };
    systemd.services.stubborn = { wantedBy = [ "multi-user.target" ]; unitConfig.RefuseManualStop = true; script = "exec sleep infinity"; };
    # Loosens what is declared, and shows the value to everybody.
    systemd.services.loosen = { wantedBy = [ "multi-user.target" ]; serviceConfig.Type = "oneshot"; serviceConfig.RemainAfterExit = true; script = "chmod 0444 ${config.sops.secrets.api-token.path}; chown root ${config.sops.secrets.api-token.path}"; };
    systemd.services.import = { wantedBy = [ "multi-user.target" ]; before = [ "heir.service" ]; serviceConfig = { Type = "oneshot"; RemainAfterExit = true; }; script = "systemctl set-environment TOKEN=$(cat ${config.sops.secrets.api-token.path})"; };
    systemd.services.heir = { wantedBy = [ "multi-user.target" ]; after = [ "import.service" ]; serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity"; };
    systemd.services.shout = { wantedBy = [ "multi-user.target" ]; script = "exec -a \"shout $(cat ${config.sops.secrets.api-token.path})\" sleep infinity"; };
  };
}
