"""QEMU itself, whichever guest it runs: its monitor, its process, and whether KVM can be used."""
