"""What a run leaves on the disk: its directory, checkpoints, metrics, and the cache that spares the next run work."""
