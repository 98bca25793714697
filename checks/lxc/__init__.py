"""Suite: containers for Proxmox VE."""
