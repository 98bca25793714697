# An extension of a Python package set: this plugin, and what a release of nixpkgs may lack.
final: prev: {
  # In nixpkgs since 25.05.
  qemu-qmp =
    prev.qemu-qmp or (final.buildPythonPackage rec {
      pname = "qemu.qmp";
      version = "0.0.3";
      format = "wheel";
      src = final.fetchPypi {
        inherit pname version format;
        dist = "py3";
        python = "py3";
        hash = "sha256-mr9FHiLAlkWAE1rvfiuVxdoL9jxpJCbaJPw4tW/wrI4=";
      };
      pythonImportsCheck = [ "qemu.qmp" ];
    });

  # In nixpkgs since 25.05; its module is called passlib, and so is what it was forked from.
  libpass = prev.libpass or prev.passlib;

  # Written in Rust; the wheel holds it compiled.
  pyrage =
    prev.pyrage or (final.buildPythonPackage rec {
      pname = "pyrage";
      version = "1.4.0";
      format = "wheel";
      src = final.fetchPypi {
        inherit pname version format;
        python = "cp310";
        dist = "cp310";
        abi = "abi3";
        platform =
          {
            x86_64-linux = "manylinux_2_17_x86_64.manylinux2014_x86_64";
            aarch64-linux = "manylinux_2_17_aarch64.manylinux2014_aarch64";
          }
          .${final.pkgs.stdenv.hostPlatform.system};
        hash =
          {
            x86_64-linux = "sha256-f06wy8K0ruXerJhixHs4lYZt9VVBU5Ua+CLpxYHmhVg=";
            aarch64-linux = "sha256-+GizYMzT+DYybUK1Mvrj6OuDQKiMygo5wK4Q/OaPbMU=";
          }
          .${final.pkgs.stdenv.hostPlatform.system};
      };
      nativeBuildInputs = [ final.pkgs.autoPatchelfHook ];
      buildInputs = [ final.pkgs.stdenv.cc.cc.lib ];
      pythonImportsCheck = [ "pyrage" ];
    });

  pytest-nixos = final.buildPythonPackage {
    pname = "pytest-nixos";
    version = (builtins.fromTOML (builtins.readFile ../pyproject.toml)).project.version;
    pyproject = true;
    src = builtins.path {
      name = "pytest-nixos-source";
      path = ../.;
      # What the wheel is made of; other files do not make it anew.
      filter =
        path: _:
        let
          below = builtins.substring (builtins.stringLength (toString ../.) + 1) (-1) (toString path);
          top = builtins.head (builtins.split "/" below);
        in
        builtins.elem top [
          "pyproject.toml"
          "README.md"
          "LICENSE"
          "pytest_nixos"
          "checks"
        ];
    };
    build-system = [ final.setuptools ];
    dependencies = map (name: final.${name}) (import ./dependencies.nix);
    # For releases of nixpkgs that do not know build-system and dependencies yet.
    nativeBuildInputs = [ final.setuptools ];
    propagatedBuildInputs = map (name: final.${name}) (import ./dependencies.nix);
    # Its tests boot machines: .ci/run.
    doCheck = false;
    pythonImportsCheck = [ "pytest_nixos.plugin.hooks" ];
    meta = {
      description = "Prove that a NixOS host is what its flake says";
      mainProgram = "pytest-nixos";
    };
  };
}
