
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-generation".text = "changed by pytest-nixos";
  
  systemd.services."pytest-nixos-generation" = {
    description = "Changed generation of pytest-nixos";
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.coreutils}/bin/true";
    };
  };
}
