"""Across: what leaves a request takes its context along."""
