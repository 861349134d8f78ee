"""A deterministic simulation of the service: what stands in for the outside world, and the runs."""
