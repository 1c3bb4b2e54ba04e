"""Floor 2, watch: what leaves a request without its context, and what outlives it."""
