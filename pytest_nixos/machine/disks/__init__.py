"""Disks as a host declares them: what lies on which, and how stage 1 makes it on empty ones."""
