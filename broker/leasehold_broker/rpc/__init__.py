"""How this house speaks gRPC: limits, the access table, and the one surrounding of every call."""
