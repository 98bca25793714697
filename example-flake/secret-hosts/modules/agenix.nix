# A model of the NixOS module of agenix: its options with their defaults, and what its activation snippets do, in their order. The
# program is the real age.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.age;
  option = type: default: mkOption { inherit type default; };
  secret = types.submodule ({ config, name, ... }: {
    options = {
      name = option types.str name;
      file = mkOption { type = types.path; };
      path = option types.str "${cfg.secretsDir}/${config.name}";
      mode = option types.str "0400";
      owner = option types.str "0";
      group = option types.str ((lib.mapAttrs (_: u: u.group) users).${config.owner} or "0");
      symlink = option types.bool true;
    };
  });
  users = config.users.users;
  secrets = lib.attrValues cfg.secrets;
  # Where the file itself lies.
  place = s: if s.symlink then "${cfg.secretsMountPoint}/$generation/${s.name}" else s.path;
in
{
  options.age = {
    ageBin = mkOption { type = types.str; };
    secrets = option (types.attrsOf secret) { };
    secretsDir = option types.path "/run/agenix";
    secretsMountPoint = option types.str "/run/agenix.d";
    identityPaths = option (types.listOf types.path) [ ];
  };
  config = lib.mkIf (cfg.secrets != { }) {
    assertions = [{ assertion = cfg.identityPaths != [ ]; message = "age.identityPaths must be set, for example by enabling openssh."; }];
    system.activationScripts = {
      agenixNewGeneration = {
        deps = [ "specialfs" ];
        text = ''
          generation=$(( $(basename "$(readlink ${cfg.secretsDir})" || echo 0) + 1 ))
          mkdir -p ${cfg.secretsMountPoint}
          grep -q "${cfg.secretsMountPoint} ramfs" /proc/mounts || mount -t ramfs none ${cfg.secretsMountPoint} -o nodev,nosuid,mode=0751
          mkdir -p -m 0751 ${cfg.secretsMountPoint}/$generation
        '';
      };
      agenixInstall = {
        deps = [ "agenixNewGeneration" "specialfs" ];
        text = lib.concatMapStrings
          (s: ''
            identities=()
            for identity in ${toString cfg.identityPaths}; do [ ! -s "$identity" ] || identities+=(-i "$identity"); done
            [ "''${#identities[@]}" -ne 0 ] || echo "[agenix] WARNING: no readable identities found!"
            mkdir -p "$(dirname "${place s}")"
            ${lib.optionalString (s.path != "${cfg.secretsDir}/${s.name}") ''mkdir -p "$(dirname "${s.path}")"''}
            (umask u=r,g=,o=; ${cfg.ageBin} --decrypt "''${identities[@]}" -o "${place s}.tmp" "${s.file}")
            chmod ${s.mode} "${place s}.tmp"
            mv -f "${place s}.tmp" "${place s}"
            ${lib.optionalString (s.symlink && s.path != "${cfg.secretsDir}/${s.name}") ''ln -sfT "${cfg.secretsDir}/${s.name}" "${s.path}"''}
          '')
          secrets + ''
          ln -sfT ${cfg.secretsMountPoint}/$generation ${cfg.secretsDir}
          [ "$generation" -le 1 ] || rm -rf ${cfg.secretsMountPoint}/$(( generation - 1 ))
        '';
      };
      users.deps = [ "agenixInstall" ];
      agenixChown = {
        deps = [ "users" "groups" ];
        text = "chown :keys ${cfg.secretsMountPoint} ${cfg.secretsMountPoint}/$generation\n" + lib.concatMapStrings (s: "chown ${s.owner}:${s.group} \"${place s}\"\n") secrets;
      };
      agenix = { deps = [ "agenixChown" ]; text = ""; };
    };
  };
}
