"""A case that cannot be used: which file, what is wrong with it, and what would help."""

from pathlib import Path


class BadCaseError(Exception):
    """One case's files are not what they should be; the message is for the user.

    Attributes
    ----------
    path : Path
        The file at fault.
    what : str
        What is wrong with it.
    remedy : str
        What would put it right.
    """

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        super().__init__(f"{path}: {what}; {remedy}")
        self.path = path
        self.what = what
        self.remedy = remedy
