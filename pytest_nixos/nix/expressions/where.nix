# Where options get their values: for each path that is asked for, the definitions that won, as the module system tells them
# (`definitionsWithLocations`, `declarations`, `highestPrio`), or null where there is no such option.
#
# Below an option (a key of a `settings`, a service of `systemd.services`) Nix itself tells the position of an attribute.
# Positions of whole options are not kept by the module system: the plugin finds them in the file.
{ safe }:
options:
let
  try = builtins.tryEval;
  most = 40;
  mostMembers = 1000;

  listOf =
    value:
    let
      forced = try value;
    in
    if forced.success && builtins.isList forced.value then forced.value else [ ];

  upTo = count: list: builtins.genList (builtins.elemAt list) (
    if builtins.length list < count then builtins.length list else count
  );

  # The option on the way to `path`, and the names that lead on inside its value.
  find =
    path:
    builtins.foldl' (
      found: name:
      if found == null then
        null
      else if safe.claims found.at "_type" "option" then
        found // { rest = found.rest ++ [ name ]; }
      else if builtins.isAttrs found.at && found.at ? ${name} && (try found.at.${name}).success then
        found // { at = found.at.${name}; }
      else
        null
    ) { at = options; rest = [ ]; } path;

  place =
    pos:
    if pos == null then
      { }
    else
      {
        file = safe.text pos.file;
        inherit (pos) line column;
      };

  # Definitions of `keys` inside the definition `value` of an option: { at; priority; value; }.
  inside =
    keys: at: priority: value:
    let
      forced = try value;
      plain = forced.value;
      next = builtins.head keys;
      here = place (builtins.unsafeGetAttrPos next plain);
      holds = attribute: plain ? ${attribute};
    in
    if !forced.success then
      [ ]
    else if safe.claims plain "_type" "merge" && holds "contents" then
      builtins.concatMap (inside keys at priority) (listOf plain.contents)
    else if safe.claims plain "_type" "if" && holds "content" then
      if (try (plain.condition == true)).value then inside keys at priority plain.content else [ ]
    else if safe.claims plain "_type" "override" && holds "content" then
      inside keys at plain.priority plain.content
    else if safe.claims plain "_type" "order" && holds "content" then
      inside keys at priority plain.content
    else if keys == [ ] then
      [
        {
          inherit at priority;
          value = plain;
        }
      ]
    else if builtins.isFunction plain then
      # A module of its own: what it sets is not known without evaluating it once more.
      [ { inherit at priority; value = null; } ]
    else if !builtins.isAttrs plain then
      [ ]
    else if holds next then
      inside (builtins.tail keys) (if here == { } then at else here) priority plain.${next}
    else if holds "config" && holds "_file" then
      inside keys at priority plain.config
    else
      [ ];

  namesIn =
    found:
    if builtins.isAttrs found.value && !(found.value ? _type) then
      map (
        name: { inherit name; } // place (builtins.unsafeGetAttrPos name found.value)
      ) (upTo mostMembers (builtins.attrNames found.value))
    else
      [ ];

  whole = definition: [ { at = { }; priority = null; value = null; } ];

  told =
    members: option: rest: definition:
    let
      found =
        if rest == [ ] && !members then
          whole definition
        else
          inside rest { } null definition.value;
    in
    map (
      one:
      {
        file = safe.text (toString (definition.file or ""));
        inherit (one) priority;
        position = if one.at ? line then one.at else null;
        members = if members then namesIn one else [ ];
      }
    ) found;

  defaultPriority = 1500;

  # Of a set of options, such as `services`: the members whose `enable` somebody sets.
  enabled =
    set:
    builtins.concatMap (
      name:
      let
        member = try set.${name};
        option = member.value.enable or null;
        priority = try (option.highestPrio or defaultPriority);
      in
      if !member.success || safe.claims member.value "_type" "option" || !(safe.claims option "_type" "option") then
        [ ]
      else if priority.success && priority.value < defaultPriority then
        map (definition: {
          inherit name;
          file = safe.text (toString (definition.file or ""));
          priority = priority.value;
        }) (upTo 4 (listOf (option.definitionsWithLocations or [ ])))
      else
        [ ]
    ) (builtins.attrNames set);

  answer =
    {
      names,
      members ? false,
    }:
    let
      found = find names;
      option = found.at;
      priority = try (option.highestPrio or null);
    in
    if found == null then
      null
    else if !(safe.claims option "_type" "option") then
      if members && builtins.isAttrs option then { enabled = enabled option; } else null
    else
      {
        inherit (found) rest;
        priority = if priority.success then priority.value else null;
        declared = map (file: safe.text (toString file)) (upTo 3 (listOf (option.declarations or [ ])));
        declaredAt = map place (upTo 1 (listOf (option.declarationPositions or [ ])));
        definitions = upTo most (
          builtins.concatMap (told members option found.rest) (listOf (option.definitionsWithLocations or [ ]))
        );
      };
in
map answer
