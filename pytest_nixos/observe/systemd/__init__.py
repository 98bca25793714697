"""systemd: units, their files, processes and failures, the boot, and the journal."""
