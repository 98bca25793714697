# The text of unit files.
{ lib, globalEnvironment ? { } }:
let
  show = value: if value == true then "true" else if value == false then "false" else toString value;
  lines = section: lib.concatStrings (lib.concatLists (lib.mapAttrsToList
    (key: value: map (v: "${key}=${show v}\n") (if lib.isList value then value else lib.optional (value != null) value))
    section));
  block = name: section: extra: lib.optionalString (section != { } || extra != "") "[${name}]\n${lines section}${extra}\n";

  # Words of these settings are joined on one line.
  joined = section: lib.mapAttrs (key: value: if lib.isList value && lib.elem key [ "Requires" "Wants" "After" "Before" "BindsTo" "PartOf" "Conflicts" "Requisite" "Documentation" "OnFailure" "OnSuccess" "Upholds" ] then lib.concatStringsSep " " value else value) section;
  escapeEnvironment = text: lib.replaceStrings [ "\\" "\"" "\n" ] [ "\\\\" "\\\"" "\\n" ] text;
in
{
  inherit lines;
  service = unit:
    let
      environment = globalEnvironment // unit.environment;
      variables = lib.concatStrings (lib.mapAttrsToList
        (name: value: lib.optionalString (value != null) "Environment=${builtins.toJSON "${name}=${lib.replaceStrings [ "%" ] [ "%%" ] (toString value)}"}\n")
        environment);
      flags = if unit.reloadIfChanged then "X-ReloadIfChanged=true\n" else if !unit.restartIfChanged then "X-RestartIfChanged=false\n" else "";
    in
    block "Unit" (joined unit.unitConfig) ""
    + "[Service]\n${variables}${flags}${lib.optionalString (!unit.stopIfChanged) "X-StopIfChanged=false\n"}${lib.optionalString unit.notSocketActivated "X-NotSocketActivated=true\n"}${lines unit.serviceConfig}";
  socket = unit: block "Unit" (joined unit.unitConfig) "" + "[Socket]\n${lines unit.socketConfig}${lib.concatMapStrings (s: "ListenStream=${s}\n") unit.listenStreams}${lib.concatMapStrings (s: "ListenDatagram=${s}\n") unit.listenDatagrams}";
  timer = unit: block "Unit" (joined unit.unitConfig) "" + "[Timer]\n${lines unit.timerConfig}";
  path = unit: block "Unit" (joined unit.unitConfig) "" + "[Path]\n${lines unit.pathConfig}";
  slice = unit: block "Unit" (joined unit.unitConfig) "" + "[Slice]\n${lines unit.sliceConfig}";
  mount = unit: block "Unit" (joined unit.unitConfig) "" + "[Mount]\n${lines unit.mountConfig}";
  target = unit: block "Unit" (joined unit.unitConfig) "";
}
