"""The processes of the laptop stack: ports, folder, start and end."""
