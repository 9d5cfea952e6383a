"""The parts of the Ray engine, whose door is :mod:`fedunlearn.federation.ray`."""
