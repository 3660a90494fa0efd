"""The gRPC door of the collector: ingest, sync, revocation, audit. Thin: reads words, calls flows, writes words."""
