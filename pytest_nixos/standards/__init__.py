"""Standards: the catalogue of controls, profiles that select them, and the judge of data
controls.
"""
