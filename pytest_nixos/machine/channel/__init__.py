"""The root command channel of a VM: the guest's bash, the protocol, and QEMU's ports."""
