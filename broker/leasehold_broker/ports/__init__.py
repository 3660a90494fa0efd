"""Protocols only: what the flows ask of the world. One port per file, only what a flow needs."""
