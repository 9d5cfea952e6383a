"""How many examples property tests try, and damages tests of files: one choice for all of them.

``HYPOTHESIS_PROFILE=thorough`` tries twenty times as many, by the hour rather than by the minute. A test that takes
long for one example tries a share of them: it says which, and no number.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fedunlearn", deadline=None, print_blob=True, max_examples=100)
settings.register_profile("thorough", settings.get_profile("fedunlearn"), max_examples=2000)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "fedunlearn")
settings.load_profile(PROFILE)

THOROUGH = PROFILE == "thorough"
"""Whether tests that pick some of many cases are to try all of them."""


def share(of_all: float) -> settings:
    """Return settings, to decorate a test with, for a share of the profile's examples."""
    return settings(max_examples=round(of_all * settings.get_profile(PROFILE).max_examples))


few = share(0.25)
"""Of tests that train, or draw volumes."""
some = share(0.6)
"""Of tests that build a model, or open a ledger."""
many = share(2.0)
"""Of pure functions with many branches."""
