"""Ten thousand lines that are wrong in some way, each answered as JSON-RPC 2.0 says."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

from hybridd.wire.protocol import MAX_BATCH, MAX_ID_INTEGER
from tests.rpc.support import connected

LINES = 10_000
NOTHING = object()

VALUES = [
    None, True, False, 0, 1, -7, 1.5, 2**53 + 1, 10**30, "", "2.0", "echo", "x" * 200, [], {},
    [1], {"value": 1}, {"valu": 1}, {"a": {"b": [1, {"c": None}]}}, "\ud800", "ü",
]  # fmt: skip
METHODS = ["echo", "echo", "refuse", "unsendable", "eko", "", "rpc.", "$/cancelRequest", "$/other"]


def an_element(chance: random.Random) -> Any:
    """A request with something wrong, most of the time."""
    if chance.random() < 0.1:
        return chance.choice(VALUES)
    made: dict[str, Any] = {"jsonrpc": "2.0", "id": chance.randrange(100), "method": "echo"}
    for _ in range(chance.randrange(3)):
        name = chance.choice(["jsonrpc", "id", "method", "params", "extra", "result"])
        made[name] = chance.choice(METHODS if name == "method" else VALUES)
        if chance.random() < 0.2:
            made[name] = chance.choice(VALUES)
    if chance.random() < 0.2:
        made.pop(chance.choice(sorted(made)))
    return made


def a_line(chance: random.Random) -> bytes:
    if chance.random() < 0.25:
        sizes = [0, 1, 2, 3, 5, MAX_BATCH + 1]
        message: Any = [an_element(chance) for _ in range(chance.choice(sizes))]
    else:
        message = an_element(chance)
    line = bytearray(json.dumps(message).encode())
    if chance.random() < 0.3:  # wrong already as JSON, as a rule
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(line))
            match chance.randrange(4):
                case 0:
                    line[at] = chance.choice(b'{}[]",:\\0 \xff\x00en')
                case 1:
                    del line[at:]
                case 2:
                    line[at:at] = chance.choice([b",", b"NaN", b"1e999", b'"a":1,"a":1', b"]"])
                case _:
                    del line[at]
            line = line or bytearray(b"{")
    return bytes(line).replace(b"\n", b" ")


# -------------------------------------------------------------------- what the specification says


def parsed(line: bytes) -> Any:
    """The strict reading of a line; NOTHING when it is no JSON."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def no(text: str) -> Any:
        raise AssertionError

    def finite(text: str) -> float:
        assert abs(float(text)) != float("inf")
        return float(text)

    try:
        return json.loads(
            line.decode(), object_pairs_hook=unique, parse_constant=no, parse_float=finite
        )
    except (ValueError, AssertionError):
        return NOTHING


def answer_to(element: Any, taken: set[Any]) -> tuple[Any, int] | None:
    """(id, code) that one element has to get; None for none."""
    invalid = (None, -32600)
    if not isinstance(element, dict) or element.get("jsonrpc") != "2.0":
        return invalid
    if not isinstance(element.get("method"), str):
        return invalid
    if "params" in element and not isinstance(element["params"], (list, dict)):
        return invalid
    if element.keys() - {"jsonrpc", "id", "method", "params"}:
        return invalid
    if "id" not in element:
        return None
    id, params = element["id"], element.get("params", {})
    if isinstance(id, bool) or not isinstance(id, (int, str)):
        return invalid
    if isinstance(id, str) and (len(id) > 128 or id == "\ud800"):
        return invalid
    if isinstance(id, int) and abs(id) > MAX_ID_INTEGER:
        return invalid
    if id in taken:
        return invalid
    taken.add(id)
    method = element["method"]
    if method not in ("echo", "refuse", "unsendable"):
        return id, -32601
    if isinstance(params, list) or params.keys() - ({"value"} if method == "echo" else set()):
        return id, -32602
    return id, {"echo": 0, "refuse": -32006, "unsendable": -32602}[method]


def answers_to(line: bytes) -> tuple[bool, Counter[tuple[Any, int]]]:
    """Whether the answer is a batch, and what it holds."""
    message = parsed(line)
    if message is NOTHING:
        return False, Counter([(None, -32700)] if line.strip() else [])
    if not isinstance(message, list):
        one = answer_to(message, set())
        return False, Counter([one] if one else [])
    if not 1 <= len(message) <= MAX_BATCH:
        return False, Counter([(None, -32600)])
    taken: set[Any] = set()
    return True, Counter(a for a in (answer_to(e, taken) for e in message) if a)


def got(answer: Any) -> tuple[Any, int]:
    assert answer["jsonrpc"] == "2.0"
    assert ("result" in answer) != ("error" in answer)
    assert answer.keys() <= {"jsonrpc", "id", "result", "error"}
    if "error" in answer:
        assert isinstance(answer["error"]["message"], str)
        assert answer["error"]["data"]["kind"]
    return answer["id"], answer.get("error", {}).get("code", 0)


async def test_each_line_is_answered_as_the_specification_says() -> None:
    chance = random.Random(20)
    seen: Counter[int] = Counter()
    async with connected() as client:
        for number in range(LINES):
            line = a_line(chance)
            client.send(line)
            client.call("echo", id=f"after {number}")
            answers: list[Any] = []
            while True:
                message = await client.receive()
                assert message is not None, line
                if isinstance(message, dict) and message["id"] == f"after {number}":
                    break
                answers.append(message)
            batch, expected = answers_to(line)
            if not answers and expected:  # it is still at work
                answers.append(await client.receive())
            assert len(answers) == bool(expected), line
            if answers:
                assert isinstance(answers[0], list) is batch, line
                found = Counter(map(got, answers[0] if batch else answers))
                assert found == expected, line
            seen.update(code for _, code in expected.elements())
    assert {-32700, -32600, -32601, -32602, -32006, 0} <= set(seen)
    assert min(seen[code] for code in (-32700, -32600, -32601, -32602)) > 100
