"""A federation over Flower's SuperLink and SuperNodes: where its files are, who its nodes are, who restarts it."""
