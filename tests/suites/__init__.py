"""Other people's tests, with us in the way."""
