"""A running machine as other processes of the same user reach it: its root command channel behind a
Unix socket in a private directory, and ssh on top of that.
"""
