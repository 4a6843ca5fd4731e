"""Prints the vectors that the openai package reads from answers, and the content coding of each answer, as JSON."""

import json
import sys

import openai

from common import BASE_URL, KEY, SMALL

client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, timeout=30)


def read(inputs, **fields):
    texts = [f"text {number}" for number in range(inputs)]
    answer = client.embeddings.with_raw_response.create(model=SMALL, input=texts, **fields)
    vectors = [item.embedding for item in answer.parse().data]
    return {"inputs": inputs, "coding": answer.headers.get("content-encoding"), "vectors": vectors}


ENCODINGS = [{}, {"encoding_format": "float"}]
json.dump([read(inputs, **fields) for inputs in (1, 40) for fields in ENCODINGS for _ in range(3)], sys.stdout)
