"""The machine that runs pytest: its processes, directories, memory and time."""
