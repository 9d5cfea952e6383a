"""The library's data and models are usable where neither Flower nor Ray is installed, and load quickly."""

import subprocess
import sys

SCRIPT = """
import sys
for name in ("flwr", "ray"):
    sys.modules[name] = None  # importing it now raises ImportError
import fedunlearn.data, fedunlearn.models
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"torchvision", "sklearn", "mlxtend"}))
"""


def test_imports_need_no_federation_and_pull_in_no_data_library():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""
