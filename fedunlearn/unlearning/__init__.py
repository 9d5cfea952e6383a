"""Centralised unlearning methods, one file each: the clients' local routines. None yet.

Nothing here knows that a federation exists.
"""
