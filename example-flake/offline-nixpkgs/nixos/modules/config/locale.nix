{ config, lib, pkgs, ... }:
let inherit (lib) mkOption types;
in
{
  options = {
    time.timeZone = mkOption { type = types.nullOr types.str; default = null; };
    time.hardwareClockInLocalTime = mkOption { type = types.bool; default = false; };
    i18n = {
      defaultLocale = mkOption { type = types.str; default = "en_US.UTF-8"; };
      extraLocaleSettings = mkOption { type = types.attrsOf types.str; default = { }; };
      supportedLocales = mkOption { type = types.listOf types.str; default = [ ]; };
      extraLocales = mkOption { type = types.either types.str (types.listOf types.str); default = [ ]; };
      glibcLocales = mkOption { type = types.raw; default = null; };
    };
    location = lib.genAttrs [ "provider" ] (_: mkOption { type = types.str; default = "manual"; });
  };
  config = {
    environment.etc.zoneinfo.source = "${pkgs.tzdata}/share/zoneinfo";
    environment.etc.localtime = lib.mkIf (config.time.timeZone != null) { source = "/etc/zoneinfo/${config.time.timeZone}"; mode = "direct-symlink"; };
    environment.etc."locale.conf".text = "LANG=${config.i18n.defaultLocale}\n" + lib.generators.toKeyValue { } config.i18n.extraLocaleSettings;
    environment.sessionVariables = { LANG = config.i18n.defaultLocale; } // config.i18n.extraLocaleSettings;
    systemd.globalEnvironment = lib.mkIf (config.i18n.defaultLocale != "") { LOCALE_ARCHIVE = "/run/current-system/sw/lib/locale/locale-archive"; TZDIR = "${pkgs.tzdata}/share/zoneinfo"; };
  };
}
