"""Runs a SuperNode, and runs it again when it has failed: ``supernode.py OPTIONS-OF-FLOWER-SUPERNODE``.

One that died without saying so counts as online for another minute at most, and until then a new one is turned away.
So it is started again when that minute is surely over. Not sooner: back before the server has seen that it was gone,
it would be waited for, for an answer that died with it.
"""

import os
import signal
import subprocess
import sys
import threading

PAUSE = float(
    os.environ.get("SUPERNODE_PAUSE", "65")
)  # seconds; of two missed heartbeats of 30, and a look at them


def main(options: list[str]) -> None:
    """Run it until somebody stops this process: then the SuperNode says goodbye, so that it can be back at once."""
    stopped = threading.Event()
    child: subprocess.Popen[bytes] | None = None

    def stop(*_: object) -> None:
        stopped.set()
        if child is not None:
            child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while not stopped.is_set():
        child = subprocess.Popen(["flower-supernode", *options])
        if stopped.is_set():  # between the last look and the start
            child.terminate()
        code = child.wait()
        if not stopped.is_set():
            print(f"the SuperNode ended with {code}; it is started again in {PAUSE:g} s", flush=True)
            stopped.wait(PAUSE)


if __name__ == "__main__":
    main(sys.argv[1:])
