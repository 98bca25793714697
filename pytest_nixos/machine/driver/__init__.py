"""The ``test-driver`` backend: a machine that a NixOS test has started, reached through its driver."""
