"""A federation that takes requests to forget while it runs."""
