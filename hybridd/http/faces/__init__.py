"""The APIs that clients know, one folder each: bodies to requests, deltas to events.

Translators are pure: they are tested without a server and know no socket. What a handler may ask of
the daemon is `api.Call`.
"""
