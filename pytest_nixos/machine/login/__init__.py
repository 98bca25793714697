"""Logins of a host's users by the host's own programs, with secrets that are lent for the time."""
