"""The Flower ClientApp: one file per task."""
