"""Calls an upstream with the openai package once for each set of proxy variables in CASES, a JSON list of objects."""

import json
import os
import sys

import openai

from common import BASE_URL, KEY

cases = json.loads(os.environ["CASES"])
for number, variables in enumerate(cases):
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "REQUEST_METHOD":
            del os.environ[name]
    os.environ.update(variables)
    with openai.OpenAI(api_key=KEY, base_url=BASE_URL, max_retries=0, timeout=30) as client:
        client.models.list(extra_query={"case": f"openai-{number}"})
json.dump({"cases": len(cases)}, sys.stdout)
