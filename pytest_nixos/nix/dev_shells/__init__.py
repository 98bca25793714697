"""Development shells of a flake, and visits to them."""
