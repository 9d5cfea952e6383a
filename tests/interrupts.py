"""For programs that tests start and interrupt."""

import signal


def heed_interrupts() -> None:
    """As ``preexec_fn``: heed SIGINT, which tests in the background ignore, and so would whatever they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
