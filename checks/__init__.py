"""The bundled check suites: one sub-package a suite, collected by pytest-nixos."""
