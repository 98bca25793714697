# Homes of home-manager that stand by themselves, as a flake's nixosConfigurations are: each on a plain machine of the home's own packages.
# Applied to a flake's `homeConfigurations`, whose entries home-manager's `lib.homeManagerConfiguration` makes.
#
# The machine has the home's user and activates the home as `home-manager switch` does, in the service that home-manager's module for
# NixOS would make (its nixos/default.nix), while the user's service manager runs. Nothing else of it is anybody's declaration.
let
  machineWith =
    home:
    {
      lib,
      options,
      pkgs,
      utils,
      ...
    }:
    let
      inherit (home.config.home) homeDirectory stateVersion username;
      uid = 1000;
      userManager = "user@${toString uid}.service";
      # Without --driver-version an activation makes the profile too, in every release.
      activate = pkgs.writeScript "hm-setup-env" ''
        #!${pkgs.runtimeShell} -el
        export XDG_RUNTIME_DIR=/run/user/${toString uid}
        export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus
        exec "$1/activate"
      '';
    in
    {
      _file = "pytest-nixos";
      nixpkgs.pkgs = home.pkgs;
      networking.hostName = "home";
      networking.firewall.enable = false;
      system.stateVersion = stateVersion;
      boot.loader.grub.enable = false;
      fileSystems."/" = {
        device = "/dev/disk/by-label/nixos";
        fsType = "ext4";
      };
      users.users.${username} = {
        inherit uid;
        isNormalUser = true;
        home = homeDirectory;
      };
      # As of a user who is logged in: their manager runs, and stays.
      systemd.tmpfiles.rules = [ "f /var/lib/systemd/linger/${username}" ];
      systemd.services."home-manager-${utils.escapeSystemdPath username}" = {
        description = "Home Manager environment for ${username}";
        wantedBy = [ "multi-user.target" ];
        wants = [
          "nix-daemon.socket"
          userManager
        ];
        after = [
          "nix-daemon.socket"
          userManager
        ];
        unitConfig.RequiresMountsFor = homeDirectory;
        stopIfChanged = false;
        serviceConfig = {
          User = username;
          Type = "oneshot";
          RemainAfterExit = "yes";
          TimeoutStartSec = "15min";
          SyslogIdentifier = "hm-activate-${username}";
          ExecStart = "${activate} ${home.activationPackage}";
        };
      };
      # Settings of dconf are written through its service, which a desktop has and a plain machine has not.
      programs = lib.optionalAttrs (options.programs ? dconf && (home.config.dconf.settings or { }) != { }) {
        dconf.enable = true;
      };
    };

  asHost =
    home:
    if !(builtins.isAttrs home && home ? activationPackage && home ? pkgs && home ? config.home.username) then
      { problem = "no-home"; }
    else if !home.pkgs.stdenv.hostPlatform.isLinux then
      { problem = "home-elsewhere"; }
    else
      import (home.pkgs.path + "/nixos/lib/eval-config.nix") {
        inherit (home.pkgs.stdenv.hostPlatform) system;
        modules = [ (machineWith home) ];
      };
in
builtins.mapAttrs (_: asHost)
