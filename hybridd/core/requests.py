"""What a request of each kind takes beside its options: one table for all faces.

A face may take more of its clients, and calls it what they know; what it hands to
`serving/manager` is this.
"""

from __future__ import annotations

from collections.abc import Mapping

from hybridd.core.fields import Bool, Field, Int, ListOf, MapOf, OneOf, Text
from hybridd.core.options import MESSAGES, NULL, TOOLS

# Three names of 255 bytes, each written as %XX, with their tags.
MODEL = Text(1, 4096)
# Which ids there are is the model's to say: the echo format's do not fit 32 bits.
TOKENS = ListOf(Int(0, 2**63 - 1))
TEXTS = ListOf(Text(), min_length=1)
COUNT = Int(1, 2**31 - 1)
ANY_OBJECT = MapOf(Field(), max_length=256)

_TEMPLATE: Mapping[str, Field] = {
    "messages": MESSAGES,
    "tools": OneOf((TOOLS, NULL)),
    "chat_template_kwargs": ANY_OBJECT,
}
FIELDS: Mapping[str, Mapping[str, Field]] = {
    "generate": {"prompt": Text(), "special": Bool()},
    "chat": _TEMPLATE,
    "embed": {"input": TEXTS, "dimensions": OneOf((COUNT, NULL)), "normalize": Bool()},
    "rerank": {"query": Text(), "documents": TEXTS, "top_n": OneOf((COUNT, NULL))},
    "tokenize": {"text": Text(), "special": Bool()},
    "detokenize": {"tokens": TOKENS},
    "apply_template": _TEMPLATE,
}
