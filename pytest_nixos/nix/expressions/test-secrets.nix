# What a machine gets in place of its host's secrets: encrypted files of the plugin's making, and the key to them. A list of modules, empty for a
# host without secrets.
#
# The host's own modules (sops-nix, agenix and what builds on them) decrypt them as they do at home; only where the encrypted file
# and the key lie is forced. The files come with the machine when it starts and never lie in a store.
#
# wanted: { mode; files; }. mode: test (files and key of our making), age or ssh (the host's own files, the user's key of that
# kind), none. files: the user gives plain files too.
# container: ramfs cannot be mounted in a user namespace.
{ safe, wanted }:
{ host, container }:
let
  directory = "/run/pytest-nixos-secrets";
  key = "${directory}/key";

  # Names of secrets hold slashes; test_secrets/archive.py names the files so too.
  file = name: "${directory}/${builtins.substring 0 32 (builtins.hashString "sha256" name)}";

  namesOf = path: if wanted.mode == "none" then [ ] else builtins.attrNames (safe.get host.config path { });
  sopsNames = namesOf [ "sops" "secrets" ];
  ageNames = namesOf [ "age" "secrets" ];
  ofEach = names: value: builtins.listToAttrs (map (name: { inherit name; value = value name; }) names);

  snippets = safe.get host.config [ "system" "activationScripts" ] { };
  snippetText = name: safe.get snippets [ name "text" ] "";
  # One that is a mere text takes no dependencies: what sysusers and userborn leave of "users" is "".
  usersOf = builtins.filter (name: builtins.isAttrs (snippets.${name} or null)) [
    "setupSecretsForUsers"
    "setupSecrets"
    "agenixNewGeneration"
    "agenixInstall"
    "users"
  ];
  test = wanted.mode == "test";

  module =
  {
    lib,
    options,
    pkgs,
    ...
  }:
  let
    knows = path: lib.hasAttrByPath path options;
    forced = path: value: lib.optionalAttrs (knows path) (lib.setAttrByPath path (lib.mkForce value));
    merged = lib.foldl' lib.recursiveUpdate { };
  in
  {
    _file = "pytest-nixos test secrets";

    config = merged [
      (lib.optionalAttrs (sopsNames != [ ]) (merged [
        (lib.optionalAttrs test {
          sops.secrets = ofEach sopsNames (name: { sopsFile = lib.mkForce (file "sops:${name}"); });
        })
        # A file that is not in the store cannot be looked at while the host is evaluated or built.
        (lib.optionalAttrs test (forced [ "sops" "validateSopsFiles" ] false))
        (forced [ "sops" "age" "keyFile" ] (if wanted.mode == "ssh" then null else key))
        (forced [ "sops" "age" "sshKeyPaths" ] (if wanted.mode == "ssh" then [ key ] else [ ]))
        (forced [ "sops" "age" "generateKey" ] false)
        (forced [ "sops" "gnupg" "home" ] null)
        (forced [ "sops" "gnupg" "sshKeyPaths" ] [ ])
        (lib.optionalAttrs container (forced [ "sops" "useTmpfs" ] true))
      ]))
      (lib.optionalAttrs (ageNames != [ ]) {
        age.secrets = lib.optionalAttrs test (ofEach ageNames (name: { file = lib.mkForce (file "age:${name}"); }));
        age.identityPaths = lib.mkForce [ key ];
      })
      {
        system.activationScripts = lib.foldl' lib.recursiveUpdate
          {
            pytestNixosSecrets = {
              deps = [ "specialfs" ];
              text = ''
                if [ ! -e ${directory}/.complete ]; then
                  mkdir -p -m 0700 ${directory}
                  _archive=/run/pytest-nixos-channel/secrets.tar
                  if [ ! -e "$_archive" ]; then
                    ${pkgs.kmod}/bin/modprobe -d "$systemConfig/kernel-modules" qemu_fw_cfg || true
                    _archive=/sys/firmware/qemu_fw_cfg/by_name/opt/org.pytest-nixos/secrets/raw
                  fi
                  if ${pkgs.gnutar}/bin/tar -x --no-same-owner -C ${directory} -f "$_archive"; then
                    # Plain files that the host's config names, where nothing is there yet.
                    while IFS=$'\t' read -r _number _owner _path; do
                      [ -e "$_path" ] || ${pkgs.coreutils}/bin/install -D -m 0400 "${directory}/$_number" "$_path"
                    done < ${directory}/.files
                    touch ${directory}/.complete
                  else
                    echo "pytest-nixos: the test secrets did not arrive" >&2
                  fi
                fi
              '';
            };
            pytestNixosSecretOwners = {
              deps = [ "pytestNixosSecrets" ] ++ builtins.filter (name: snippets ? ${name}) [ "users" "groups" ];
              text = ''
                if [ -e ${directory}/.files ]; then
                  while IFS=$'\t' read -r _number _owner _path; do
                    [ "$_owner" = - ] || chown -h "$_owner:" "$_path" || true
                  done < ${directory}/.files
                fi
              '';
            };
          }
          (map (name: { ${name}.deps = [ "pytestNixosSecrets" ]; }) usersOf
            ++ lib.optional (container && builtins.match ".*ramfs.*" (builtins.replaceStrings [ "\n" ] [ " " ] (snippetText "agenixNewGeneration")) != null) {
              agenixNewGeneration.text = lib.mkForce (
                builtins.replaceStrings [ "ramfs" ] [ "tmpfs" ] (snippetText "agenixNewGeneration")
              );
            });
      }
    ];
  };
in
if sopsNames == [ ] && ageNames == [ ] && !wanted.files then [ ] else [ module ]
