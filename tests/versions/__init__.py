"""The tests of Flask and Quart with the versions that are supported, beside the newest."""
