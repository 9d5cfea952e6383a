"""What Flower starts on the server: ``flwr run``, under its simulation or its deployment runtime."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run-config names, under whichever of Flower's runtimes this is."""
    from fedunlearn.deployment.server import run  # a strategy's author need not import a deployment

    run(grid, context)
