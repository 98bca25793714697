"""Nix: flake refs, evaluation to host configs, builds, and what its failures mean. Only this
room runs ``nix``.
"""
