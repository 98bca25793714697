"""``--nixos-watch``: the run is repeated whenever the flake changes, and each time only what the
change can affect is judged.
"""
