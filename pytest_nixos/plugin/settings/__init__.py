"""What is declared to pytest, and what was given."""
