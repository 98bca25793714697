# Compressed swap in memory, made by systemd's zram-generator.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.zramSwap;
  generator = config.services.zram-generator;
  devices = map (n: "zram${toString n}") (lib.range 0 (cfg.swapDevices - 1));
in
{
  options.zramSwap = {
    enable = mkOption { type = types.bool; default = false; };
    swapDevices = mkOption { type = types.int; default = 1; };
    memoryPercent = mkOption { type = types.int; default = 50; };
    memoryMax = mkOption { type = types.nullOr types.int; default = null; };
    priority = mkOption { type = types.int; default = 5; };
    algorithm = mkOption { type = types.either (types.enum [ "842" "lzo" "lzo-rle" "lz4" "lz4hc" "zstd" ]) types.str; default = "zstd"; };
    writebackDevice = mkOption { type = types.nullOr types.path; default = null; };
  };
  options.services.zram-generator = {
    enable = mkOption { type = types.bool; default = false; };
    package = mkOption { type = types.package; default = pkgs.zram-generator; };
    settings = mkOption { type = types.attrsOf (types.attrsOf types.unspecified); default = { }; };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.enable {
      services.zram-generator.enable = true;
      services.zram-generator.settings = lib.genAttrs devices (_:
        let size = "${toString cfg.memoryPercent} / 100 * ram"; in
        {
          zram-size = if cfg.memoryMax != null then "min(${size}, ${toString cfg.memoryMax} / 1024 / 1024)" else size;
          compression-algorithm = cfg.algorithm;
          swap-priority = cfg.priority;
        } // lib.optionalAttrs (cfg.writebackDevice != null) { writeback-device = cfg.writebackDevice; });
    })
    (lib.mkIf generator.enable {
      boot.kernelModules = [ "zram" ];
      systemd.packages = [ generator.package ];
      systemd.generators.zram-generator = "${generator.package}/lib/systemd/system-generators/zram-generator";
      systemd.services."systemd-zram-setup@".path = [ pkgs.util-linux ];
      environment.etc."systemd/zram-generator.conf".text = lib.generators.toINI { } generator.settings;
    })
  ];
}
