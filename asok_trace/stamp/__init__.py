"""Floor 3, out: what carries the mark."""
