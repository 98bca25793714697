# What pyproject.toml depends on, as nixpkgs names it; a test holds the two against each other.
[
  "pytest"
  "pluggy"
  "pytest-testinfra"
  "pytest-xdist"
  "pexpect"
  "jsonschema"
  "qemu-qmp"
  "rich"
  "jinja2"
  "detect-secrets"
  "cryptography"
  "zstandard"
  "msgspec"
  "platformdirs"
]
