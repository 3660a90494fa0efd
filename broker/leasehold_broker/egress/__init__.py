"""HTTP door of the sidecar: a strict HTTP/1.1 codec of our own, a gate, a relay. The caller is taken to be hostile."""
