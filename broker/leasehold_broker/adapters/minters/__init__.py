"""Minters, one provider a file: how a key is made there, found again by its mark, and ended. All pass one contract."""
