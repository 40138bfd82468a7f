"""The SDK: one sans-IO session under a blocking and an asynchronous client.

`session` knows the protocol and no socket, `calls` knows the methods and no transport, `collect`
puts streams together; `blocking` and `asynchronous` only move bytes and wait.
"""
