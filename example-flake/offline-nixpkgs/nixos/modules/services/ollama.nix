# Ollama. The options are NixOS 25.11's; the program behind them is a stand-in (../../../pkgs/ollama).
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.ollama;
  str = default: mkOption { type = types.str; inherit default; };
  flag = default: mkOption { type = types.bool; inherit default; };
  staticUser = cfg.user != null && cfg.group != null;
in
{
  imports = [
    (lib.mkRemovedOptionModule [ "services" "ollama" "listenAddress" ] "Use `services.ollama.host` and `services.ollama.port` instead.")
    (lib.mkRemovedOptionModule [ "services" "ollama" "sandbox" ] "Set `services.ollama.user` and `services.ollama.group` instead.")
    (lib.mkRemovedOptionModule [ "services" "ollama" "writablePaths" ] "The `models` directory is now always writable.")
  ];
  options.services.ollama = {
    enable = flag false;
    package = mkOption { type = types.package; default = pkgs.ollama; };
    user = mkOption { type = types.nullOr types.str; default = null; };
    group = mkOption { type = types.nullOr types.str; default = cfg.user; };
    home = str "/var/lib/ollama";
    models = str "${cfg.home}/models";
    host = str "127.0.0.1";
    port = mkOption { type = types.port; default = 11434; };
    acceleration = mkOption { type = types.nullOr (types.enum [ false "rocm" "cuda" "vulkan" ]); default = null; };
    rocmOverrideGfx = mkOption { type = types.nullOr types.str; default = null; };
    environmentVariables = mkOption { type = types.attrsOf types.str; default = { }; };
    loadModels = mkOption { type = types.listOf types.str; default = [ ]; apply = models: map (m: m) models; };
    syncModels = flag false;
    openFirewall = flag false;
  };

  config = lib.mkIf cfg.enable {
    users = lib.mkIf staticUser {
      users.${cfg.user} = { inherit (cfg) home group; isSystemUser = true; };
      groups.${cfg.group} = { };
    };
    systemd.services.ollama = {
      description = "Server for local large language models";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      environment = cfg.environmentVariables // { HOME = cfg.home; OLLAMA_MODELS = cfg.models; OLLAMA_HOST = "${cfg.host}:${toString cfg.port}"; };
      serviceConfig = lib.optionalAttrs staticUser { User = cfg.user; Group = cfg.group; } // import ./hardening.nix // {
        Type = "exec";
        DynamicUser = true;
        ExecStart = "${lib.getExe cfg.package} serve";
        WorkingDirectory = cfg.home;
        StateDirectory = [ "ollama" ];
        ReadWritePaths = [ cfg.home cfg.models ];
        CapabilityBoundingSet = [ "" ];
        DeviceAllow = [ "char-nvidiactl" "char-nvidia-caps" "char-nvidia-frontend" "char-nvidia-uvm" "char-drm" "char-fb" "char-kfd" "/dev/dxg" ];
        DevicePolicy = "closed";
        PrivateDevices = false;
        PrivateUsers = true;
        ProcSubset = "all";
        ProtectProc = "invisible";
        RemoveIPC = true;
        SupplementaryGroups = [ "render" ];
        RestrictAddressFamilies = [ "AF_INET" "AF_INET6" "AF_UNIX" ];
        SystemCallArchitectures = "native";
        SystemCallFilter = [ "@system-service @resources" "~@privileged" ];
      };
    };
    systemd.services.ollama-model-loader = lib.mkIf (cfg.loadModels != [ ]) {
      description = "Download ollama models in the background";
      wantedBy = [ "multi-user.target" "ollama.service" ];
      wants = [ "network-online.target" ];
      after = [ "ollama.service" "network-online.target" ];
      bindsTo = [ "ollama.service" ];
      environment = config.systemd.services.ollama.environment;
      serviceConfig = { Type = "exec"; DynamicUser = true; Restart = "on-failure"; RestartSec = "1s"; RestartMaxDelaySec = "2h"; RestartSteps = 10; };
      script = ''
        failed=0
        for model in ${lib.escapeShellArgs cfg.loadModels}; do
          ${lib.getExe cfg.package} pull "$model" || failed=$((failed + 1))
        done
        if [ "$failed" != 0 ]; then echo "error: $failed models failed to download" >&2; exit 1; fi
      '';
    };
    networking.firewall = lib.mkIf cfg.openFirewall { allowedTCPPorts = [ cfg.port ]; };
    environment.systemPackages = [ cfg.package ];
  };
}
