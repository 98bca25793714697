"""Homes: what home-manager makes of them."""
