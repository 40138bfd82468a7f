"""The HTTP gateway: a second face over the same daemon, beside `rpc`, which it does not know.

`server` speaks HTTP/1.1 and knows no model; `guard` says who may ask; `routing` finds what is asked
for; `faces` are pure translators, one folder for each API that clients know; `gateway` and `asking`
bring them together with the daemon's parts.
"""
