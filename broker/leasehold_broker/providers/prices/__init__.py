"""Prices as data, and the book that reads them."""
