"""One control: what it says, what it needs to see, and what a host declares about it."""
