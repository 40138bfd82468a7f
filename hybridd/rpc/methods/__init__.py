"""The methods, one module a namespace. Importing this package registers them all."""

from hybridd.rpc.methods import config, events, http, inference, jobs, models, system

__all__ = ["config", "events", "http", "inference", "jobs", "models", "system"]
