"""Sources: files of the flake, of the closure and of the initrd, read on this machine."""
