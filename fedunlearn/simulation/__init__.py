"""A whole experiment on this machine: which federations it consists of, how they run, what is measured of them."""
