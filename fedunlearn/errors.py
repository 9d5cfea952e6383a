"""Errors whose message is meant for the user: one line that names the value, the place and the remedy."""


class UserError(Exception):
    """The user's input is wrong. The command line prints the message alone and exits with 2."""


class ConfigError(UserError):
    """An experiment file (or a ``--set`` override of it) cannot be run as written."""


class RunError(Exception):
    """The input was fine but the run failed. The command line prints the message and exits with 1."""
