"""``pytest-nixos``: look at the machine, at a flake's hosts, at the controls, without running a
test.
"""
