# An extension of a Python package set: this plugin, and what a release of nixpkgs may lack.
final: prev:
let
  inherit (final.pkgs) lib;
  system = final.pkgs.stdenv.hostPlatform.system;

  # A wheel of PyPI by its hash, `any` or by system.
  wheel =
    {
      pname,
      version,
      python ? "py3",
      abi ? "none",
      platform ? "any",
      hash,
      import,
      needs ? [ ],
    }:
    final.buildPythonPackage {
      inherit pname version;
      format = "wheel";
      src = final.fetchPypi {
        inherit pname version python abi hash;
        format = "wheel";
        dist = python;
        platform = platform.${system} or platform;
      };
      # For a release of nixpkgs that does not know `dependencies` yet.
      propagatedBuildInputs = needs;
      pythonImportsCheck = [ import ];
    };
  of = systems: systems.${system} or (throw "pytest-nixos: no build of this package for ${system}");
in
{
  # In nixpkgs since 25.05.
  qemu-qmp =
    prev.qemu-qmp or (wheel {
      pname = "qemu.qmp";
      version = "0.0.3";
      import = "qemu.qmp";
      hash = "sha256-mr9FHiLAlkWAE1rvfiuVxdoL9jxpJCbaJPw4tW/wrI4=";
    });

  libpass =
    prev.libpass or (wheel {
      pname = "libpass";
      version = "1.9.4";
      import = "passlib";
      hash = "sha256-pghiGvLX1kV5lXmI+sKH8jD4h5LIOi0PiVr7Be5ClIk=";
    });

  pyrage =
    prev.pyrage or (wheel {
      pname = "pyrage";
      version = "1.4.0";
      import = "pyrage";
      python = "cp310";
      abi = "abi3";
      platform = {
        x86_64-linux = "manylinux_2_17_x86_64.manylinux2014_x86_64";
        aarch64-linux = "manylinux_2_17_aarch64.manylinux2014_aarch64";
      };
      hash = of {
        x86_64-linux = "sha256-f06wy8K0ruXerJhixHs4lYZt9VVBU5Ua+CLpxYHmhVg=";
        aarch64-linux = "sha256-+GizYMzT+DYybUK1Mvrj6OuDQKiMygo5wK4Q/OaPbMU=";
      };
    });

  # nixpkgs makes bindings of its own for grammars, whose place has moved from release to release.
  tree-sitter-nix = wheel {
    pname = "tree_sitter_nix";
    version = "0.1.0";
    import = "tree_sitter_nix";
    python = "cp310";
    abi = "abi3";
    platform = {
      x86_64-linux = "manylinux_2_5_x86_64.manylinux1_x86_64.manylinux_2_17_x86_64.manylinux2014_x86_64";
      aarch64-linux = "manylinux_2_17_aarch64.manylinux2014_aarch64";
    };
    hash = of {
      x86_64-linux = "sha256-WMB/eIvG0kt6kK/0lDHeV8OTPFxU0QCBJdogc/G8Rd4=";
      aarch64-linux = "sha256-Jd9wBdkYiWg0fZf1mAtf14AADzQM4eXbGYRHvyCMiHE=";
    };
  };

  # 0.25 wants a newer tree-sitter than nixpkgs' releases have.
  tree-sitter-javascript = wheel {
    pname = "tree_sitter_javascript";
    version = "0.23.1";
    import = "tree_sitter_javascript";
    python = "cp39";
    abi = "abi3";
    platform = {
      x86_64-linux = "manylinux_2_5_x86_64.manylinux1_x86_64.manylinux_2_17_x86_64.manylinux2014_x86_64";
      aarch64-linux = "manylinux_2_17_aarch64.manylinux2014_aarch64";
    };
    hash = of {
      x86_64-linux = "sha256-BW3AT7ayQpP4xf7EPBTn4WuiB1swCcZDq/jIXtxMfDw=";
      aarch64-linux = "sha256-WmvBBVsGHFBV7Fjznumy6e+45uCulwg4r3TaCvuBHwo=";
    };
  };

  # nixpkgs 24.05 has 0.21, whose interface is another one.
  tree-sitter =
    if lib.versionAtLeast prev.tree-sitter.version "0.23" then
      prev.tree-sitter
    else
      wheel {
        pname = "tree_sitter";
        version = "0.26.1";
        import = "tree_sitter";
        python = "cp311";
        abi = "cp311";
        platform = {
          x86_64-linux = "manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64";
        };
        hash = of { x86_64-linux = "sha256-FSlFfgme5ZY7lzjULtgTMxbZNhV+kSqkqYX0/a8Bito="; };
      };

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
          "setup.py"
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
