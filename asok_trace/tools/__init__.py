"""Floor 6, people: what command lines and test runners load."""
