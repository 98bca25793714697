"""The machines of a session: started, shared, put back after changes, taken through an upgrade,
joined to clusters.
"""
