"""The only place where wire formats (protobuf, canonical JSON) and domain words meet."""
