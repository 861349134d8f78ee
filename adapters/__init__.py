"""Venues: the protocol every adapter keeps, ccxt, and the local venue simulator."""
