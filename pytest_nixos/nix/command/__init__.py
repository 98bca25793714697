"""One command of Nix: what it is asked about, its command line, what it logs, and where answers are kept."""
