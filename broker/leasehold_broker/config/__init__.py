"""Configuration: one TOML file a process, read once into frozen settings. Unknown keys are refused by name."""

from leasehold_broker.config.collector import CollectorConfig, load_collector
from leasehold_broker.config.read import ConfigError
from leasehold_broker.config.sidecar import SidecarConfig, load_sidecar

__all__ = ["CollectorConfig", "ConfigError", "SidecarConfig", "load_collector", "load_sidecar"]
