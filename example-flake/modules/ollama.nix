# Language models, on the CPU, for this machine only.
{ lib, options, ... }:
let
  # NixOS 24.05 had one option for address and port, and no list of models.
  since2411 = options.services.ollama ? host;
in
{
  services.ollama = {
    enable = true;
    acceleration = false;
    environmentVariables = {
      OLLAMA_KEEP_ALIVE = "5m";
      OLLAMA_NUM_PARALLEL = "1";
      OLLAMA_MAX_LOADED_MODELS = "1";
    };
  } // lib.optionalAttrs since2411 {
    host = "127.0.0.1";
    port = 11434;
    loadModels = [ "tinyllama:1.1b" ];
  };
}
