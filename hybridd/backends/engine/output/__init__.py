"""From tokens to what a client gets, in stages that know nothing of each other:

    token → its bytes → text up to a stop string → Delta

An engine chooses tokens; `generation.Generation` takes each with its bytes and its `logprobs`
entry, has `text.TextStream` make text of the bytes, and gives an `Output` with a `Delta`, until it
is enough. What tells reasoning and tool calls from text belongs between the last two stages, and
what restrains the choice of tokens stands before the first: neither concerns an engine.
"""
