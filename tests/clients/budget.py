"""Prints how the openai package reports a refusal of a budget, and how long that takes."""

import json
import sys
import time

import openai

from common import BASE_URL, KEY, SMALL

client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, timeout=30, max_retries=2)
begun = time.monotonic()
try:
    client.embeddings.create(model=SMALL, input="some words that no budget covers", dimensions=8)
    report = {"class": "answered"}
except openai.APIStatusError as error:
    report = {"class": type(error).__name__, "status": error.status_code, "code": error.code, "type": error.type}
json.dump({**report, "seconds": time.monotonic() - begun}, sys.stdout)
