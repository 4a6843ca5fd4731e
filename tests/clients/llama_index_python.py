"""Prints the results of LlamaIndex's OpenAI embeddings in an application, as one JSON document."""

import asyncio

import openai
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

from common import BASE_URL, KEY, SMALL, TINY, fail_next, two_rounds

DOCUMENTS = ["one", "two", "one", "a longer document"]


def embedding(api_key=KEY, **settings):
    return OpenAIEmbedding(model=SMALL, api_base=BASE_URL, api_key=api_key, timeout=30, **settings)


def like(**settings):
    return OpenAILikeEmbedding(model_name=TINY, api_base=BASE_URL, api_key=KEY, timeout=30, **settings)


def cacheable():
    return {
        "documents": {"vectors": like(embed_batch_size=3).get_text_embedding_batch(DOCUMENTS)},
        "query": like().get_query_embedding("two"),
        "async": asyncio.run(like(embed_batch_size=2).aget_text_embedding_batch(DOCUMENTS)),
        "openai": embedding().get_text_embedding_batch(DOCUMENTS),
        "openai_query": embedding().get_query_embedding("two"),
        "dimensions": embedding(dimensions=64).get_text_embedding("two"),
    }


def rest(number):
    fail_next({"behaviour": "rate_limit", "retry_after_ms": 20})
    recovered = like().get_text_embedding(f"after the limit {number}")
    return {"recovered": recovered, "wrong_key": wrong_key()}


def wrong_key():
    try:
        embedding(api_key="sk-wrong", max_retries=0).get_query_embedding("two")
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "body": error.body}
    return "answered"


two_rounds(cacheable, rest)
