"""Recordings: what a run saw of its hosts, kept to be judged again without Nix and machine."""
