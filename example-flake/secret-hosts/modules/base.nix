{ pkgs, lib, ... }:
{
  system.stateVersion = "24.05";
  documentation.enable = false;
  boot.isContainer = lib.mkDefault true;
  users.mutableUsers = false;
  users.users.app = { isSystemUser = true; group = "app"; };
  users.groups.app = { };
  # A copy of this machine's program: the stand-in for nixpkgs has none.
  age.ageBin = lib.mkDefault "${../age}";
  _module.args.readerOf = path: {
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.coreutils}/bin/test -s ${path}";
      User = "app";
    };
  };
}
