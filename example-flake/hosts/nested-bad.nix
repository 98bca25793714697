# The twin of nested.
{
  imports = [ ./nested.nix ];
  networking.hostName = "nested-bad";
  # breaks: CTR-011 (root in the container is root here)
  containers.web.privateUsers = "no";
}
