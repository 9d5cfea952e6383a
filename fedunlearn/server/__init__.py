"""The durable round loop that every strategy shares: plan, send, combine, evaluate, checkpoint."""
