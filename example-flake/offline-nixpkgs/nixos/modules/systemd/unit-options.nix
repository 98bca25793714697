# Options of systemd units, as real NixOS has them.
{ lib, pkgs, config }:
let
  inherit (lib) mkOption types;
  atom = types.nullOr (types.oneOf [ types.bool types.int types.float types.str types.path types.package ]);
  value = types.oneOf [ atom (types.listOf atom) ];
  settings = mkOption { default = { }; type = types.attrsOf (types.either (types.listOf atom) atom) // { description = "attribute set of systemd options"; }; };
  merged = mkOption { default = { }; type = types.attrsOf unitSetting; };
  # Lists of one option are concatenated; other values must agree.
  unitSetting = lib.mkOptionType {
    name = "systemd option";
    check = value.check;
    merge = loc: definitions:
      if lib.any (d: lib.isList d.value) definitions then lib.concatMap (d: lib.toList d.value) definitions
      else lib.mergeEqualOption loc definitions;
  };
  names = mkOption { default = [ ]; type = types.listOf types.str; };
  text = mkOption { type = types.lines; default = ""; };
  flag = default: mkOption { type = types.bool; inherit default; };

  shared = {
    enable = flag true;
    overrideStrategy = mkOption { default = "asDropinIfExists"; type = types.enum [ "asDropinIfExists" "asDropin" ]; };
    requiredBy = names;
    upheldBy = names;
    wantedBy = names;
    aliases = names;
  };

  unit = shared // {
    description = mkOption { default = ""; type = types.singleLineStr; };
    documentation = names;
    requires = names;
    wants = names;
    upholds = names;
    after = names;
    before = names;
    bindsTo = names;
    partOf = names;
    conflicts = names;
    requisite = names;
    onFailure = names;
    onSuccess = names;
    unitConfig = merged;
    startLimitBurst = mkOption { type = types.nullOr types.int; default = null; };
    startLimitIntervalSec = mkOption { type = types.nullOr types.int; default = null; };
    restartTriggers = mkOption { default = [ ]; type = types.listOf types.unspecified; };
    reloadTriggers = mkOption { default = [ ]; type = types.listOf types.unspecified; };
  };

  unitConfigOf = config: lib.mkMerge [
    (lib.mapAttrs (_: lib.mkIf true) (lib.filterAttrs (_: v: v != [ ] && v != "") {
      Requires = config.requires;
      Wants = config.wants;
      Upholds = config.upholds;
      After = config.after;
      Before = config.before;
      BindsTo = config.bindsTo;
      PartOf = config.partOf;
      Conflicts = config.conflicts;
      Requisite = config.requisite;
      Documentation = config.documentation;
      OnFailure = config.onFailure;
      OnSuccess = config.onSuccess;
      Description = config.description;
    }))
    (lib.optionalAttrs (config.startLimitIntervalSec != null) { StartLimitIntervalSec = toString config.startLimitIntervalSec; })
    (lib.optionalAttrs (config.startLimitBurst != null) { StartLimitBurst = toString config.startLimitBurst; })
    (lib.optionalAttrs (config.restartTriggers != [ ]) {
      X-Restart-Triggers = "${pkgs.writeText "X-Restart-Triggers-${config.triggerName or "unit"}" (lib.concatMapStrings (x: "${if lib.isString x || lib.isPath x || lib.isDerivation x then x else builtins.toJSON x}\n") config.restartTriggers)}";
    })
    (lib.optionalAttrs (config.reloadTriggers != [ ]) {
      X-Reload-Triggers = "${pkgs.writeText "X-Reload-Triggers-${config.triggerName or "unit"}" (lib.concatMapStrings (x: "${if lib.isString x || lib.isPath x || lib.isDerivation x then x else builtins.toJSON x}\n") config.reloadTriggers)}";
    })
  ];
  withUnitConfig = { config, ... }: { config.unitConfig = unitConfigOf config; };

  script = name: body: pkgs.writeShellScriptBin name ("set -e\n\n" + body);
  scriptPath = name: body: "${script name body}/bin/${name} ";
  # The scripts of a service, by what their names end in.
  scriptsOf = config: lib.filterAttrs (_: body: body != "") {
    pre-start = config.preStart;
    start = config.script;
    post-start = config.postStart;
    inherit (config) reload;
    pre-stop = config.preStop;
    post-stop = config.postStop;
  };
in
rec {
  inherit shared unit unitSetting merged withUnitConfig;

  # A plain unit: its finished text.
  concrete = { name, config, ... }: {
    options = shared // {
      name = mkOption { type = types.str; internal = true; };
      text = mkOption { type = types.nullOr types.str; default = null; };
      unit = mkOption { internal = true; type = types.raw; };
    };
    config.name = lib.mkDefault name;
  };

  # `defaultPath`: packages whose programs every service finds.
  serviceWith = defaultPath: { name, config, ... }: {
    imports = [ withUnitConfig ];
    options = unit // {
      name = mkOption { type = types.str; internal = true; };
      environment = mkOption { default = { }; type = types.attrsOf (types.nullOr (types.oneOf [ types.str types.path types.package types.int ])); };
      path = mkOption { default = [ ]; type = types.listOf (types.oneOf [ types.package types.str ]); };
      serviceConfig = merged;
      confinement.enable = flag false;
      script = text;
      scriptArgs = mkOption { type = types.str; default = ""; };
      preStart = text;
      postStart = text;
      reload = text;
      preStop = text;
      postStop = text;
      jobScripts = mkOption { type = types.coercedTo types.path lib.singleton (types.listOf types.path); internal = true; default = [ ]; };
      enableStrictShellChecks = flag false;
      restartIfChanged = flag true;
      reloadIfChanged = flag false;
      stopIfChanged = flag true;
      notSocketActivated = flag false;
      startAt = mkOption { type = types.coercedTo types.str lib.singleton (types.listOf types.str); default = [ ]; };
      runner = mkOption { internal = true; type = types.raw; default = null; };
      triggerName = mkOption { internal = true; type = types.str; default = name; };
    };
    config = {
      name = lib.mkDefault "${name}.service";
      path = lib.mkAfter defaultPath;
      environment.PATH = lib.mkIf (config.path != [ ]) (lib.mkDefault "${lib.makeBinPath config.path}:${lib.makeSearchPath "sbin" config.path}");
      jobScripts = lib.mapAttrsToList (suffix: script "${safe name}-${suffix}") (scriptsOf config);
      serviceConfig = lib.mkMerge [
        (lib.mkIf (config.preStart != "") { ExecStartPre = [ (scriptPath "${safe name}-pre-start" config.preStart) ]; })
        (lib.mkIf (config.script != "") { ExecStart = scriptPath "${safe name}-start" config.script + config.scriptArgs; })
        (lib.mkIf (config.postStart != "") { ExecStartPost = [ (scriptPath "${safe name}-post-start" config.postStart) ]; })
        (lib.mkIf (config.reload != "") { ExecReload = scriptPath "${safe name}-reload" config.reload; })
        (lib.mkIf (config.preStop != "") { ExecStop = scriptPath "${safe name}-pre-stop" config.preStop; })
        (lib.mkIf (config.postStop != "") { ExecStopPost = scriptPath "${safe name}-post-stop" config.postStop; })
      ];
    };
  };
  service = serviceWith (with pkgs; [ coreutils findutils gnugrep gnused systemd ]);
  # Units of the initial RAM disk find nothing but what is linked into its /bin.
  initrdService = serviceWith [ ];
  safe = lib.replaceStrings [ "@" "\\" ] [ "-" "-" ];

  # Units whose own section is called e.g. `socketConfig`.
  kind = suffix: section: extra: { name, config, ... }: {
    imports = [ withUnitConfig ];
    options = unit // { name = mkOption { type = types.str; internal = true; }; triggerName = mkOption { internal = true; type = types.str; default = name; }; } // lib.optionalAttrs (section != null) { ${section} = merged; } // extra;
    config.name = lib.mkDefault "${name}.${suffix}";
  };
  socket = kind "socket" "socketConfig" { listenStreams = names; listenDatagrams = names; };
  timer = kind "timer" "timerConfig" { };
  path = kind "path" "pathConfig" { };
  slice = kind "slice" "sliceConfig" { };
  target = kind "target" null { };
  mount = { name, config, ... }: {
    imports = [ (kind "mount" "mountConfig" { what = mkOption { type = types.str; }; where = mkOption { type = types.str; }; type = mkOption { type = types.str; default = ""; }; options = mkOption { type = types.commas; default = ""; }; }) ];
    config.mountConfig = { What = config.what; Where = config.where; } // lib.optionalAttrs (config.type != "") { Type = config.type; } // lib.optionalAttrs (config.options != "") { Options = config.options; };
  };
}
