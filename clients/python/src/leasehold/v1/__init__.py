"""Generated from proto/leasehold/v1; do not edit."""
