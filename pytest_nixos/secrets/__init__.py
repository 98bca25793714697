"""Find secrets in a text: pure functions from text to hits, which nowhere hold the whole of what
they found.
"""
