"""Tests of the tools that others load: instrumentors."""
