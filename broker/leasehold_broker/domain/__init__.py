"""The rules of leasehold: pure values and functions. No I/O, no clock, no randomness, no async, no logging."""
