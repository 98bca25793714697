{ buildPythonPackage, setuptools }:
buildPythonPackage {
  pname = "acme-nixos";
  version = "0.1.0";
  pyproject = true;
  src = ./.;
  build-system = [ setuptools ];
  # For releases of nixpkgs that do not know build-system yet.
  nativeBuildInputs = [ setuptools ];
  pythonImportsCheck = [ "acme_nixos.plugin" ];
}
