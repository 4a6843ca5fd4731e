"""What every Python client script shares: where to send, how to script the upstream, how to write an answer down."""

import json
import os
import sys
import urllib.request

BASE_URL = os.environ["BASE_URL"]
CONTROL_URL = os.environ["CONTROL_URL"]
KEY = "sk-test"
SMALL = "text-embedding-3-small"
TINY = "tiny"


def fail_next(*behaviours):
    """Queues behaviours for the upstream's next calls."""
    body = json.dumps({"next": list(behaviours)}).encode()
    request = urllib.request.Request(CONTROL_URL + "/__control", data=body, method="POST")
    urllib.request.urlopen(request, timeout=10).close()


def inputs_sent():
    """How many inputs the upstream has seen so far."""
    with urllib.request.urlopen(CONTROL_URL + "/__calls", timeout=10) as answer:
        return sum(call["inputs"] for call in json.load(answer))


def refused(call):
    """What a client library raises when the upstream refuses a call; its text holds the status and the body."""
    try:
        call()
    except Exception as error:  # Each library has classes of its own.
        return {"class": type(error).__name__, "text": str(error)}
    return "answered"


def two_rounds(cacheable, rest):
    """Runs the sequence twice and prints it, with what the cacheable part of each round sent upstream."""
    rounds, sent = [], []
    for number in (1, 2):
        before = inputs_sent()
        results = cacheable()
        sent.append(inputs_sent() - before)
        rounds.append({"cacheable": results, **rest(number)})
    json.dump({"rounds": rounds, "cacheable_inputs_sent": sent}, sys.stdout)
