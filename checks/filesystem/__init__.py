"""File systems that only a reboot can judge: what is declared persistent, and what is forgotten."""
