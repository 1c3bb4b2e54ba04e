"""Floor 1: the scope, the names, the settings. Imports the standard library alone."""
