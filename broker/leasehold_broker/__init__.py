"""leasehold-broker: the sidecar and the collector. See broker/README.md for the map of the rooms."""

__version__ = "0.1.0"
