# `nixosConfigurations` with the specialisation that is asked for as a host of its own: `web^gaming` is what `web` declares in
# `specialisation.gaming.configuration`, merged with the rest of `web` as its modules merge it.
#
# name: of the host that is asked for.
{ safe, name }:
hosts:
let
  parts = builtins.match "(.+)\\^([^^]+)" name;
  parent = builtins.elemAt parts 0;
  child = builtins.elemAt parts 1;

  # A specialisation is an evaluation inside the host's. It hands itself out, since only its own `extendModules` and options say what
  # it is, and the host's config shows no more than its config.
  itself =
    {
      config,
      options,
      pkgs,
      extendModules,
      ...
    }:
    {
      _file = "pytest-nixos";
      system.build.pytestNixosHost = { inherit config options pkgs extendModules; };
    };
  within = hosts.${parent}.extendModules {
    modules = [
      {
        _file = "pytest-nixos";
        specialisation.${child}.configuration = itself;
      }
    ];
  };

  # Those that the host declares itself: asking for another must not make it.
  children = builtins.attrNames (safe.get hosts [ parent "config" "specialisation" ] { });
  host = within.config.specialisation.${child}.configuration.system.build.pytestNixosHost;
  named = wanted: value: {
    name = "${parent}^${wanted}";
    inherit value;
  };
in
if parts == null || hosts ? ${name} || !(hosts ? ${parent}) || !(hosts.${parent} ? extendModules) then
  hosts
else
  hosts // builtins.listToAttrs (map (wanted: named wanted (if wanted == child then host else null)) children)
