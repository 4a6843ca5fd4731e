"""Prints the results of Haystack's OpenAI embedders in an application, as one JSON document."""

import os

# Haystack's telemetry would contact a host on the internet.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

import asyncio

import openai
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret

from common import BASE_URL, KEY, TINY, fail_next, two_rounds


def settings(key=KEY, **more):
    return {"api_key": Secret.from_token(key), "model": TINY, "api_base_url": BASE_URL, "timeout": 30, **more}


def embed_text(text, **more):
    answer = OpenAITextEmbedder(**settings(**more)).run(text)
    return {"vectors": [answer["embedding"]], "meta": written(answer["meta"])}


def embed_documents(**more):
    embedder = OpenAIDocumentEmbedder(**settings(progress_bar=False, **more))
    return embedded(embedder.run(documents()))


async def embed_documents_async():
    embedder = OpenAIDocumentEmbedder(**settings(progress_bar=False, batch_size=2))
    return embedded(await embedder.run_async(documents()))


def documents():
    return [Document(id=str(number), content=text) for number, text in enumerate(["one", "two", "one", "a longer document"])]


def embedded(answer):
    return {"vectors": [document.embedding for document in answer["documents"]], "meta": written(answer["meta"])}


def written(meta):
    usage = {name: meta["usage"][name] for name in ("prompt_tokens", "total_tokens")}
    return {"model": meta["model"], "usage": usage}


def cacheable():
    return {
        "documents": embed_documents(batch_size=3),
        "text": embed_text("two"),
        "prefix": embed_text("two", prefix="query: "),
        "dimensions": embed_documents(dimensions=4),
        "async": asyncio.run(embed_documents_async()),
    }


def rest(number):
    fail_next({"behaviour": "rate_limit", "retry_after_ms": 20})
    recovered = embed_text(f"after the limit {number}")
    return {"recovered": recovered, "wrong_key": wrong_key()}


def wrong_key():
    try:
        embed_text("two", key="sk-wrong", max_retries=0)
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "body": error.body}
    return "answered"


two_rounds(cacheable, rest)
