# A stand-in for Ollama: its HTTP API and command line, and no language model.
{ lib, pkgs }:
pkgs.runCommand "ollama-offline-stand-in-0.12.0"
{
  pname = "ollama-offline-stand-in";
  version = "0.12.0";
  meta.mainProgram = "ollama";
} ''
  mkdir -p $out/bin $out/libexec
  cp ${./ollama.py} $out/libexec/ollama.py
  cat > $out/bin/ollama <<EOF
  #!${pkgs.runtimeShell}
  exec -a ollama ${pkgs.python3}/bin/python3 -IS $out/libexec/ollama.py "\$@"
  EOF
  chmod +x $out/bin/ollama
''
