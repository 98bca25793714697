# Reads values that may throw, hold functions or derivations, or contain themselves, as plain JSON values.
#
# `tryEval` catches `throw` and `assert` only; a missing attribute, a type error or `abort` ends the whole
# evaluation. So nothing here selects an attribute that it has not looked for.
let
  depthLimit = 8;
  elementLimit = 5000;
  textLimit = 262144;

  try = builtins.tryEval;

  text = value: builtins.unsafeDiscardStringContext (builtins.substring 0 textLimit value);

  unreadable = left: {
    inherit left;
    readable = false;
    value = null;
  };
  leaf = left: value: {
    inherit value;
    left = left - 1;
    readable = true;
  };

  # The value's own claim of what it is; comparing a claim that is no string is harmless.
  claims =
    set: attribute: wanted:
    builtins.isAttrs set && set ? ${attribute} && (try (set.${attribute} == wanted)).value;

  # `left` is how many more elements the document may hold: a self-referential set ends there.
  go =
    depth: left: value:
    let
      forced = try value;
      plain = forced.value;
      type = builtins.typeOf plain;
    in
    if !forced.success then
      unreadable left
    else if type == "string" then
      leaf left (text plain)
    else if type == "path" then
      leaf left (text (toString plain))
    else if type == "list" then
      collection depth left plain
    else if type == "set" then
      if claims plain "type" "derivation" || plain ? outPath then
        storePath left plain
      # A value of GVariant, as dconf's options hold them, stands for what it wraps.
      else if claims plain "_type" "gvariant" && plain ? value then
        go depth left plain.value
      else if plain ? __functor || claims plain "_type" "pkgs" || claims plain "_type" "option" then
        leaf left null
      else
        attributes depth left plain
    else if builtins.elem type [ "int" "float" "bool" "null" ] then
      leaf left plain
    else
      leaf left null;

  storePath =
    left: value:
    let
      path = try (if value ? outPath then text (toString value.outPath) else null);
    in
    if path.success then leaf left path.value else unreadable left;

  collection =
    depth: left: values:
    if depth >= depthLimit then
      leaf left null
    else
      let
        step =
          acc: value:
          if acc.left <= 0 then
            acc
          else
            let
              result = go (depth + 1) acc.left value;
            in
            {
              inherit (result) left;
              values = acc.values ++ [ result.value ];
            };
        all = builtins.foldl' step {
          inherit left;
          values = [ ];
        } values;
      in
      leaf all.left all.values;

  attributes =
    depth: left: set:
    if depth >= depthLimit then
      leaf left null
    else
      let
        step =
          acc: name:
          # Written as JSON, a set that has `__toString` is what calling it returns; here it would be null.
          if acc.left <= 0 || name == "_module" || name == "__toString" then
            acc
          else
            let
              result = go (depth + 1) acc.left set.${name};
            in
            {
              inherit (result) left;
              pairs =
                acc.pairs
                ++ (
                  if result.readable then
                    [
                      {
                        inherit name;
                        inherit (result) value;
                      }
                    ]
                  else
                    [ ]
                );
            };
        all = builtins.foldl' step {
          inherit left;
          pairs = [ ];
        } (builtins.attrNames set);
      in
      leaf all.left (builtins.listToAttrs all.pairs);

  # Walks `path`, a list of attribute names, into `set`.
  walk =
    set: path:
    builtins.foldl' (
      found: name:
      if found.state != "present" then
        found
      else
        let
          forced = try found.value;
        in
        if !forced.success then
          { state = "unreadable"; }
        else if builtins.isAttrs forced.value && forced.value ? ${name} then
          {
            state = "present";
            value = forced.value.${name};
          }
        else
          { state = "absent"; }
    ) { state = "present"; value = set; } path;
  # Whether `path` leads to, or into, an option that is hidden and not set.
  isRemoved =
    options: path:
    let
      step =
        found: name:
        if found == null || claims found "_type" "option" then
          found
        else if builtins.isAttrs found && found ? ${name} && (try found.${name}).success then
          found.${name}
        else
          null;
      option = builtins.foldl' step options path;
    in
    option != null
    && claims option "_type" "option"
    && claims option "visible" false
    && claims option "isDefined" false;
in
{
  inherit claims text;

  # A value as JSON: { readable; value; }.
  json =
    value:
    let
      result = go 0 elementLimit value;
    in
    {
      inherit (result) readable value;
    };

  # The option at `path` as { state; value; }, `state` being present, absent or unreadable.
  #
  # What `mkRemovedOptionModule` leaves behind throws when it is read: hidden, and set by nobody. A host that sets
  # it fails at its own assertion, so it counts as an option that the release does not have.
  option =
    { config, options }:
    path:
    let
      found = walk config path;
      result = go 0 elementLimit found.value;
      state = if isRemoved options path then "absent" else "unreadable";
    in
    if found.state == "unreadable" then
      { inherit state; }
    else if found.state != "present" then
      { inherit (found) state; }
    else if result.readable then
      {
        state = "present";
        inherit (result) value;
      }
    else
      { inherit state; };

  # The value at `path`, or `default` where it is absent or throws.
  get =
    config: path: default:
    let
      found = walk config path;
      forced = try found.value;
    in
    if found.state == "present" && forced.success then forced.value else default;

  # `value` evaluated to the bottom: { readable; value; }.
  fact =
    value:
    let
      forced = try (builtins.deepSeq value value);
    in
    {
      readable = forced.success;
      value = if forced.success then forced.value else null;
    };
}
