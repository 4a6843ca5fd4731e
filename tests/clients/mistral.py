"""Prints the results of the mistralai package in an application, as one JSON document."""

import asyncio

from mistralai.client import Mistral

from common import BASE_URL, KEY, TINY, refused, two_rounds

ROOT = BASE_URL.removesuffix("/v1")
client = Mistral(api_key=KEY, server_url=ROOT, timeout_ms=30_000)


def written(answer):
    usage = {"prompt_tokens": answer.usage.prompt_tokens, "total_tokens": answer.usage.total_tokens}
    head = {"has_id": bool(answer.id), "object": answer.object, "model": answer.model, "usage": usage}
    return {**head, "vectors": [item.embedding for item in answer.data], "indices": [item.index for item in answer.data]}


def embed(**fields):
    return written(client.embeddings.create(model=TINY, **fields))


async def embed_async(**fields):
    async with Mistral(api_key=KEY, server_url=ROOT, timeout_ms=30_000) as asynchronous:
        return written(await asynchronous.embeddings.create_async(model=TINY, **fields))


def cacheable():
    documents = ["one", "two", "one", "a longer document"]
    return {
        "documents": embed(inputs=documents),
        "text": embed(inputs="two"),
        "dimensions": embed(inputs=documents, output_dimension=256),
        "float": embed(inputs=["two"], output_dtype="float", encoding_format="float"),
        "async": asyncio.run(embed_async(inputs=documents)),
    }


def rest(_number):
    wrong = Mistral(api_key="sk-wrong", server_url=ROOT, timeout_ms=30_000)
    return {
        "empty_text": refused(lambda: embed(inputs=["one", ""])),
        "wrong_key": refused(lambda: wrong.embeddings.create(model=TINY, inputs="one")),
    }


two_rounds(cacheable, rest)
