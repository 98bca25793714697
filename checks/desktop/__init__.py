"""Suite of the control family desktop."""
