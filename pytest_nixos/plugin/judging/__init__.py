"""Data controls: what they need is observed together, then each is judged."""
