"""Prints the results of the voyageai package in an application, as one JSON document."""

import asyncio

import voyageai

from common import BASE_URL, KEY, TINY, refused, two_rounds

client = voyageai.Client(api_key=KEY, base_url=BASE_URL, timeout=30)
asynchronous = voyageai.AsyncClient(api_key=KEY, base_url=BASE_URL, timeout=30)


def written(answer):
    return {"vectors": answer.embeddings, "usage": answer.total_tokens}


def cacheable():
    documents = ["one", "two", "one", "a longer document"]
    return {
        "documents": written(client.embed(documents, model=TINY)),
        "query": written(client.embed(["two"], model=TINY, input_type="query")),
        "dimensions": written(client.embed(documents, model=TINY, output_dimension=256)),
        "float": written(client.embed(["two"], model=TINY, output_dtype="float", truncation=False)),
        "async": written(asyncio.run(asynchronous.embed(documents, model=TINY))),
    }


def rest(_number):
    wrong = voyageai.Client(api_key="sk-wrong", base_url=BASE_URL, timeout=30)
    return {
        # One byte per component, so the vector does not consist of floats.
        "int8": written(client.embed(["one", "two"], model=TINY, output_dtype="int8")),
        "empty_text": refused(lambda: client.embed(["one", ""], model=TINY)),
        "wrong_key": refused(lambda: wrong.embed(["one"], model=TINY)),
    }


two_rounds(cacheable, rest)
