"""Public NixOS configurations, evaluated and judged on a real nixpkgs; see ``__main__.py``."""
