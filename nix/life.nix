[
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "new";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "new";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "new";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "new";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
  systemd.services."pytest-nixos-life-failing" = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig = { Type = "oneshot"; ExecStart = "${pkgs.coreutils}/bin/false"; };
  };

    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
  system.activationScripts."pytest-nixos-life".text = "echo 'pytest-nixos-life: on purpose'; false";

    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
  systemd.services."pytest-nixos-life-kept".serviceConfig.ExecStart = lib.mkForce "'unbalanced";

    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
  boot.postBootCommands = "echo 'pytest-nixos: process 1 ends on purpose'; exit 1";

    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
  system.activationScripts."pytest-nixos-life".text = ''
    if [ -e /run/booted-system ]; then touch /run/pytest-nixos-life-begun; ${pkgs.coreutils}/bin/sleep 600; fi
  '';

    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "new";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7100;
  networking.firewall.allowedTCPPorts = lib.mkIf ("yes" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("yes" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "new";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo new > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo new > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "new";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7100;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("yes" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "new";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo new > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo new > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo new > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo new > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7100;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("no" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("yes" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
(
{ pkgs, lib, ... }: {
  environment.etc."pytest-nixos-life".text = "old";
  boot.kernel.sysctl."net.ipv4.tcp_keepalive_time" = lib.mkForce 7200;
  networking.firewall.allowedTCPPorts = lib.mkIf ("yes" == "yes") [ 47113 ];
  users.users."pytest-nixos-life" = lib.mkIf ("no" == "yes") { isSystemUser = true; group = "nogroup"; };
  systemd.services."pytest-nixos-life-kept" = {
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "old";
    serviceConfig.ExecStart = lib.mkDefault "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-reloads" = {
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
      ExecReload = "${pkgs.bash}/bin/bash -c 'echo old > /run/pytest-nixos-life-reloaded'";
    };
  };
  systemd.services."pytest-nixos-life-removed" = lib.mkIf ("yes" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  systemd.services."pytest-nixos-life-added" = lib.mkIf ("no" == "yes") {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  imports = [
    ({ pkgs, lib, ... }: {
      
    })
  ];
}
)
]
