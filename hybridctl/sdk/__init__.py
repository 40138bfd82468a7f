"""The SDK: one sans-IO session under a blocking and an asynchronous client.

`session` knows the protocol and no socket, `router` who waits for what, `arguments` how requests
are packed, `collect` how streams are put together. The connections move bytes and wait, each in
its own way. What stands on them is written once: `async_methods` and `async_streams`, of which
etc/make/unasync.py makes `blocking_methods` and `blocking_streams`.
"""
