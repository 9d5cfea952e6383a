"""The Flower ClientApp, and what a client does: one file per task (see ``tasks``)."""
