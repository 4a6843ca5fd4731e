"""Shared parts of the Python client scripts: addresses, control of the upstream, and output."""

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
    """Returns the number of inputs that the upstream has received so far."""
    with urllib.request.urlopen(CONTROL_URL + "/__calls", timeout=10) as answer:
        return sum(call["inputs"] for call in json.load(answer))


def refused(call):
    """Returns the exception of a client library for a refused call. Its text contains the status and the body."""
    try:
        call()
    except Exception as error:  # Each library has its own classes.
        return {"class": type(error).__name__, "text": str(error)}
    return "answered"


def two_rounds(cacheable, rest):
    """Runs the sequence twice and prints it, with the inputs that the cacheable part of each round sent upstream."""
    rounds, sent = [], []
    for number in (1, 2):
        before = inputs_sent()
        results = cacheable()
        sent.append(inputs_sent() - before)
        rounds.append({"cacheable": results, **rest(number)})
    json.dump({"rounds": rounds, "cacheable_inputs_sent": sent}, sys.stdout)
