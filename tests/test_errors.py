"""An error of the system's names the file, as far as one line can help."""

import errno
from pathlib import Path

import pytest

from fedunlearn.errors import naming


def test_an_error_without_a_file_gets_one_and_others_keep_theirs():
    path = Path("runs/metrics.jsonl")
    with pytest.raises(OSError) as caught, naming(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as caught, naming(path):
        Path("no/such/file").read_text()
    assert caught.value.filename == "no/such/file"
