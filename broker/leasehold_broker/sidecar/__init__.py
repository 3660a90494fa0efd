"""The thin gRPC door of the sidecar."""
