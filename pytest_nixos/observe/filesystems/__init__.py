"""File systems: what is mounted, what the files are and who can change them, swap and disks."""
