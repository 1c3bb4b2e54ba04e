"""Floor 4, in: what opens and closes scopes."""
