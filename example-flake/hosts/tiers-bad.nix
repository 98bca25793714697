# The twin of tiers.
{ pkgs, ... }:
{
  imports = [ ./tiers.nix ];
  networking.hostName = "tiers-bad";
  # breaks: NET-018 (let in from everywhere by hand)
  systemd.services.open-notes = {
    description = "Let TCP 8080 in";
    wantedBy = [ "multi-user.target" ];
    after = [ "nftables.service" ];
    path = [ pkgs.nftables ];
    serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
    script = "nft add rule inet nixos-fw input-allow tcp dport 8080 accept";
  };
  # breaks: LLM-006 (a second and a half for each word)
  services.ollama.environmentVariables.OLLAMA_STAND_IN_WORD_SECONDS = "1.5";
}
