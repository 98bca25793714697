"""The ``container`` backend: a NixOS toplevel under systemd-nspawn."""
