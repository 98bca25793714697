# The twin of catalogue-good, for the controls of the profile `twins`: each statement breaks what its comment names, and nothing else. The
# kind of observation by which it is found stands in brackets; a test wants every kind to be here or in llm-host-bad.
{ config, lib, pkgs, ... }:
let
  # What somebody typed as root and never wrote down.
  byHand = after: command: {
    description = "Typed by hand";
    inherit after;
    wantedBy = [ "multi-user.target" ];
    path = [ pkgs.coreutils pkgs.gnused pkgs.util-linux ];
    serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
    script = command;
  };
in
{
  imports = [ ./catalogue-good.nix ];
  networking.hostName = "catalogue-bad";

  # breaks: AUTH-003 [account] (no password is needed)
  users.users.guest = { isNormalUser = true; hashedPassword = ""; };
  # breaks: AUTH-006 and AUTH-005 [account] (a second root, whose number is root's)
  users.enforceIdUniqueness = false;
  users.users.toor = { uid = 0; isSystemUser = true; group = "root"; hashedPassword = "!"; };

  # breaks: NET-016 [address] (declared, and never given to an interface)
  systemd.network.networks."20-cluster" = { matchConfig.Name = "cluster0"; address = [ "10.0.0.41/19" ]; };

  # breaks: SEC-004 [declaration] (everybody may read a unit's environment)
  systemd.services.notes.environment.NOTES_API_KEY = lib.concatStrings [ "correct-horse" "-battery-staple" ]; # put together, so that the source of the other hosts holds none
  # breaks: SEC-010 [declaration] (the file is copied into the store)
  systemd.services.notes.serviceConfig.LoadCredential = [ "session:${./notes-session.key}" ];
  # breaks: FLK-012 [declaration]
  warnings = [ "The option `services.notes.old' has been renamed to `services.notes.new'." ];

  # breaks: NIX-007 [eval] (nothing makes the store smaller)
  nix.optimise.automatic = lib.mkForce false;

  # breaks: FS-014 [file] (hashes for everybody)
  systemd.services.open-shadow = byHand [ ] "chmod 0644 /etc/shadow";
  # breaks: SEC-002 [file] (a decrypted secret that others may read)
  systemd.services.open-secret = byHand [ ] "chmod 0644 /run/secrets/token";

  # breaks: NET-006 [firewall] (packets with a false source address come in)
  networking.firewall.checkReversePath = false;

  # breaks: NIX-012 [generation] (a channel that no flake knows of)
  systemd.services.channel = byHand [ ] "echo 'https://channels.nixos.org/nixos-unstable nixos' > /root/.nix-channels";

  # breaks: NATS-005 [http] (it calls itself another host)
  services.nats.serverName = "catalogue-good";
  # breaks: NATS-012 [socket] (strangers may read who is connected)
  services.nats.settings.http = "0.0.0.0:8222";

  # breaks: AUD-021 [journal] (a later file of the same kind wins; gone at each boot)
  environment.etc."systemd/journald.conf.d/50-by-hand.conf".text = "[Journal]\nStorage=volatile\n";

  # breaks: NIX-003 [nix] (anybody's binaries are taken)
  nix.settings.require-sigs = false;
  # breaks: NIX-002 [nix] (every user is root to the daemon)
  nix.settings.trusted-users = [ "*" ];

  # breaks: LLM-012 [process] (every web page may talk to the models)
  services.ollama.environmentVariables.OLLAMA_ORIGINS = "*";

  # breaks: NET-013 [program] (passwords in the clear)
  environment.systemPackages = [ (pkgs.writeShellScriptBin "telnet" "exec ${pkgs.netcat}/bin/nc -t \"$@\"") ];

  # breaks: FS-010 [scan] (everybody may rename what others put there)
  systemd.tmpfiles.rules = [ "d /var/lib/drop 0777 root root -" ];
  # breaks: AUTH-010 [scan] (a way to root that no option declares)
  systemd.services.setuid = byHand [ ] "cp ${pkgs.coreutils}/bin/id /var/lib/id; chmod 4755 /var/lib/id";

  # breaks: AUTH-028 [pam] (login is right, and su lets everybody be whoever has no password)
  security.pam.services.su.allowNullPassword = lib.mkForce true;
  # breaks: AUTH-030 [sudo] (everybody can write what guest runs as root)
  security.sudo.extraRules = [ { users = [ "guest" ]; commands = [ "/var/lib/drop/deploy" ]; } ];
  # breaks: AUTH-032 [doas] (wheel is asked for a password, and everybody else is root without one)
  security.doas.extraRules = [ { groups = [ "users" ]; noPass = true; } ];
  # breaks: AUTH-033 [polkit] (whoever sits at the machine may do anything)
  security.polkit.extraConfig = "polkit.addRule(function(action, subject) { if (subject.local) return polkit.Result.YES; });";
  # breaks: FS-021 [search-path] (everybody can put programs there)
  systemd.services.report.environment.PATH = lib.mkForce "/var/lib/drop";
  # breaks: FS-018 [core-dumps] (a later file of the same kind wins)
  environment.etc."systemd/coredump.conf.d/50-by-hand.conf".text = "[Coredump]\nStorage=external\n";
  # breaks: NET-019 [resolver] (one link takes what it is told)
  systemd.network.networks."20-cluster".networkConfig.DNSSEC = "no";

  # breaks: SSH-012 [sshd]
  services.openssh.settings.X11Forwarding = lib.mkForce true;
  # breaks: SSH-023 [sshd-declared] (edited in place, until the next activation)
  systemd.services.edit-sshd = byHand [ ] ''
    sed 's/^MaxAuthTries .*/MaxAuthTries 60/' /etc/ssh/sshd_config > /run/sshd_config
    rm /etc/ssh/sshd_config
    mv /run/sshd_config /etc/ssh/sshd_config
  '';

  # breaks: FS-019 [storage] (no room for another generation)
  systemd.services.fill-boot = byHand [ ] "mkdir -p /boot; mount -t tmpfs -o size=1M tmpfs /boot; head -c 1020K /dev/zero > /boot/old-kernel";

  # breaks: SEC-001 [store-scan] (what the project's own canary looks like)
  environment.etc."backup/token".text = "pytest-nixos-${"canary"}-0123456789abcdef0123456789abcdef\n";
  # breaks: TLS-006 [store-scan] (the text of a key; no key belongs to it)
  environment.etc."ssl/site.key".text = "-----BEGIN PRIVATE KEY-----\n${lib.concatStrings (lib.genList (_: "Tm90IGEga2V5") 6)}\n-----END PRIVATE KEY-----\n";

  # breaks: SBX-001 [unit-exposure] and SBX-006 [unit-property] (a service without a sandbox)
  systemd.services.report = {
    description = "Report";
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
}
