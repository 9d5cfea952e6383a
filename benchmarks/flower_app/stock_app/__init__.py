"""A Flower app without anything of ours but the task: same data, models and batches as the other engines."""
