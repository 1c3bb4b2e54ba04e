"""Floor 3, kept: recent requests, to be looked at without any server."""
