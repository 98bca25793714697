"""The network as a machine has it: sockets, addresses, answers, names, and sshd's settings."""
