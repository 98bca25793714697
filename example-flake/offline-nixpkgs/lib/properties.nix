# Wrappers that a definition may carry (condition, merge, priority, order) and how they are taken off.
{ lib }:
let
  inherit (lib) concatMap filter foldl' isAttrs length map mapAttrs min optionals sort;

  kind = x: if isAttrs x then x._type or "" else "";
  defaultPriority = 100;
  defaultOrder = 1000;
in
rec {
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkAssert = condition: message: mkIf (if condition then true else throw "\nFailed assertion: ${message}");
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOptionDefault = mkOverride 1500;
  mkDefault = mkOverride 1000;
  defaultOverridePriority = defaultPriority;
  mkImageMediaOverride = mkOverride 60;
  mkForce = mkOverride 50;
  mkVMOverride = mkOverride 10;
  mkOrder = priority: content: { _type = "order"; inherit priority content; };
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;
  mkFixStrictness = lib.id;
  mkDefinition = attrs: attrs // { _type = "definition"; };

  # A definition of a set of options, as one plain set for each branch, with the wrapper moved to the leaves. The names in a
  # condition's content must not depend on the condition: that is what lets a module say `config = mkIf config.x.enable { ... }`.
  pushDown = definition:
    {
      merge = concatMap pushDown definition.contents;
      "if" = map (mapAttrs (_: mkIf definition.condition)) (pushDown definition.content);
      override = map (mapAttrs (_: mkOverride definition.priority)) (pushDown definition.content);
      order = map (mapAttrs (_: mkOrder definition.priority)) (pushDown definition.content);
    }.${kind definition} or [ definition ];

  # One definition of one option, as the list of values that remain when merges are opened and conditions decided.
  discharge = definition:
    {
      merge = concatMap discharge definition.contents;
      "if" =
        if lib.isBool definition.condition then optionals definition.condition (discharge definition.content)
        else throw "`mkIf' called with a non-Boolean condition";
    }.${kind definition} or [ definition ];

  priorityOf = definition: if kind definition.value == "override" then definition.value.priority else defaultPriority;

  # Of definitions { file, value }, those of the strongest priority.
  strongest = definitions:
    let
      highestPrio = foldl' (prio: definition: min prio (priorityOf definition)) 9999 definitions;
      strip = definition: if kind definition.value == "override" then definition // { value = definition.value.content; } else definition;
    in
    { inherit highestPrio; values = map strip (filter (definition: priorityOf definition == highestPrio) definitions); };

  inOrder = definitions:
    let
      strip = definition:
        if kind definition.value == "order" then definition // { value = definition.value.content; inherit (definition.value) priority; }
        else definition;
      before = a: b: (a.priority or defaultOrder) < (b.priority or defaultOrder);
    in
    if lib.any (definition: kind definition.value == "order") definitions then sort before (map strip definitions) else definitions;

  filterOverrides = definitions: (strongest definitions).values;
  filterOverrides' = strongest;
  sortProperties = inOrder;
  dischargeProperties = discharge;
  pushDownProperties = pushDown;
}
