"""A fleet of real processes around one real collector, over TLS: what `make bench-revocation` measures on."""
