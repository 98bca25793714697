"""Judging: which controls apply, what was seen for each, the finding, its reason and remedy."""
