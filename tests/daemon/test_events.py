"""The event stream: publishing never waits, and who loses is told."""

from __future__ import annotations

from typing import Any

from hybridd.daemon.events import BACKLOG, EventHub, Subscription


def drain(subscription: Subscription) -> list[Any]:
    """Events, and the number of lost ones where they are missing."""
    found: list[Any] = []
    while subscription.waiting:
        event, lost = subscription.take()
        found.append(event["n"] if event is not None else f"{lost} lost")
    return found


def test_topics() -> None:
    hub, woken = EventHub(clock=lambda: 12.5), []
    models = hub.subscribe(["models"], lambda: woken.append("models"))
    both = hub.subscribe(["models", "jobs"], lambda: woken.append("both"))
    hub.publish("jobs", "done", n=1)
    hub.publish("models", "added", n=2)
    hub.publish("memory", "pressure", n=3)
    assert woken == ["both", "models", "both"]
    assert both.take()[0] == {
        "subscription": both.name, "seq": 1, "time": 12.5, "topic": "jobs", "type": "done", "n": 1,
    }  # fmt: skip
    assert drain(models) == [2]
    assert drain(both) == [2]
    assert models.take() == (None, 0)


def test_unsubscribed() -> None:
    hub = EventHub()
    made = hub.subscribe(["models"], lambda: None)
    assert len(hub) == 1
    hub.unsubscribe(made.name)
    hub.unsubscribe(made.name)
    hub.publish("models", "added", n=1)
    assert not made.waiting
    assert len(hub) == 0


def test_who_is_too_far_behind_is_told_how_many_and_where() -> None:
    hub = EventHub()
    made = hub.subscribe(["models"], lambda: None)
    for n in range(BACKLOG + 5):
        hub.publish("models", "added", n=n)
    assert made.take()[0]["n"] == 0  # type: ignore[index]
    hub.publish("models", "added", n="in the gap, though there is room again")
    assert drain(made) == [*range(1, BACKLOG), "6 lost"]
    hub.publish("models", "added", n="after")
    event, _ = made.take()
    assert event is not None
    assert (event["n"], event["seq"]) == ("after", BACKLOG + 7), "the numbers show the gap too"


def test_a_subscriber_may_leave_while_it_is_told() -> None:
    hub = EventHub()
    first = hub.subscribe(["models"], lambda: hub.unsubscribe(first.name))
    second = hub.subscribe(["models"], lambda: None)
    hub.publish("models", "added", n=1)
    assert drain(second) == [1]
