"""Prints the results of the azure-ai-inference package in an application, as one JSON document."""

from azure.ai.inference import EmbeddingsClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError

from common import BASE_URL, KEY, TINY, fail_next, two_rounds

# The client adds `/embeddings?api-version=...`.
ENDPOINT = BASE_URL.removesuffix("/v1") + "/models"


def client(key=KEY, **settings):
    return EmbeddingsClient(endpoint=ENDPOINT, credential=AzureKeyCredential(key), model=TINY, **settings)


def embed(texts, **fields):
    answer = client().embed(input=texts, **fields)
    usage = {"prompt_tokens": answer.usage.prompt_tokens, "total_tokens": answer.usage.total_tokens}
    vectors, indices = [item.embedding for item in answer.data], [item.index for item in answer.data]
    return {"has_id": bool(answer.id), "model": answer.model, "usage": usage, "vectors": vectors, "indices": indices}


def refused(texts, key=KEY):
    try:
        client(key).embed(input=texts)
    except HttpResponseError as error:
        return {"class": type(error).__name__, "status": error.status_code, "text": error.message}
    return "answered"


def cacheable():
    documents = ["one", "two", "one", "a longer document"]
    return {
        "documents": embed(documents),
        "query": embed(["two"], input_type="query"),
        "base64": embed(["two"], encoding_format="base64"),
        "float": embed(["two"], encoding_format="float"),
        "dimensions": embed(documents, dimensions=4),
    }


def rest(number):
    fail_next({"behaviour": "rate_limit", "retry_after_ms": 20})
    recovered = embed([f"after the limit {number}"])
    return {"recovered": recovered, "empty_text": refused(["one", ""]), "wrong_key": refused(["one"], "sk-wrong")}


two_rounds(cacheable, rest)
