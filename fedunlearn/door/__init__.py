"""The door: forget requests over HTTP, for those who are not on the server."""
