"""The methods, one module a namespace. Importing this package registers them all."""

from hybridd.rpc.methods import config, events, inference, jobs, models, system

__all__ = ["config", "events", "inference", "jobs", "models", "system"]
