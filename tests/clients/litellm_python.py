"""Prints the results of the SDK of LiteLLM in an application, as one JSON document."""

import os

# Uses the package's own list of prices. The newest one would be a download.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import asyncio

import litellm
import openai

from common import BASE_URL, KEY, SMALL, TINY, fail_next, two_rounds

DOCUMENTS = ["one", "two", "one", "a longer document"]
litellm.suppress_debug_info = True


def settings(model, **more):
    return {"model": "openai/" + model, "api_base": BASE_URL, "api_key": KEY, "timeout": 30, **more}


def embed(texts, model=TINY, **more):
    return written(litellm.embedding(input=texts, **settings(model, **more)))


async def embed_async(texts):
    return written(await litellm.aembedding(input=texts, **settings(TINY)))


def written(answer):
    usage = {"prompt_tokens": answer.usage.prompt_tokens, "total_tokens": answer.usage.total_tokens}
    vectors, indices = [item["embedding"] for item in answer.data], [item["index"] for item in answer.data]
    return {"object": answer.object, "model": answer.model, "usage": usage, "vectors": vectors, "indices": indices}


def cacheable():
    return {
        "documents": embed(DOCUMENTS),
        "text": embed("two"),
        "small": embed(DOCUMENTS, model=SMALL),
        "dimensions": embed(DOCUMENTS, model=SMALL, dimensions=64),
        "base64": embed(["two"], encoding_format="base64"),
        "async": asyncio.run(embed_async(DOCUMENTS)),
    }


def rest(number):
    fail_next({"behaviour": "rate_limit", "retry_after_ms": 20})
    recovered = embed([f"after the limit {number}"], max_retries=2)
    return {"recovered": recovered, "wrong_key": refused("one", api_key="sk-wrong"), "empty_text": refused(["one", ""])}


def refused(texts, **more):
    try:
        embed(texts, max_retries=0, **more)
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "text": str(error)}
    return "answered"


two_rounds(cacheable, rest)
