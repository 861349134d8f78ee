"""Simulation: the service's own runner and algorithms, and the paper venue, over recorded or synthetic markets in virtual time."""
