"""The APIs that clients know, one folder each: bodies to requests, deltas to events.

Translators are pure: they are tested without a server and know neither sockets nor trio. What they
may ask of the daemon is `api.Call`.
"""
