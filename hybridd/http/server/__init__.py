"""HTTP/1.1 over byte streams, on h11: knows no model, no face and no rule of who may ask.

On h11, since what exists for trio would end or hang the daemon: a client that stops reading holds
its writes for ever, and malformed traffic raises into the nursery. Only HTTP/1.1 is spoken; an
upgrade is not taken.
"""
