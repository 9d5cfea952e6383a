"""Engines: Flower Grids that run the same strategy and the same client code in one process or many."""
