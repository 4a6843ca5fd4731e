"""Prints the results of LangChain's OpenAIEmbeddings in an application, as one JSON document."""

import asyncio

import openai
import tiktoken
from langchain_openai import OpenAIEmbeddings

from common import BASE_URL, KEY, SMALL, fail_next, two_rounds

# LangChain sends arrays of token arrays. The real ranks would be a download, and the token ids do not matter here.
BYTES = tiktoken.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={})
tiktoken.encoding_for_model = lambda _model: BYTES
tiktoken.get_encoding = lambda _name: BYTES


def embeddings(api_key=KEY, **settings):
    return OpenAIEmbeddings(model=SMALL, base_url=BASE_URL, api_key=api_key, timeout=30, **settings)


def cacheable():
    documents = ["one", "two", "one", "a longer document"]
    return {
        "documents": embeddings(chunk_size=3).embed_documents(documents),
        "query": embeddings().embed_query("two"),
        "texts": embeddings(check_embedding_ctx_length=False, dimensions=64).embed_documents(documents),
        "async": asyncio.run(embeddings().aembed_documents(documents)),
        "floats": embeddings(model_kwargs={"encoding_format": "float"}).embed_query("two"),
    }


def rest(number):
    return {"wrong_key": wrong_key(), "recovered": recovered(number)}


def wrong_key():
    try:
        embeddings(api_key="sk-wrong", max_retries=0).embed_query("two")
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "code": error.code, "body": error.body}
    return "answered"


def recovered(number):
    fail_next({"behaviour": "rate_limit", "retry_after_ms": 20})
    limited = embeddings().embed_query(f"after the limit {number}")
    fail_next({"behaviour": "hang_up"})
    return {"rate_limit": limited, "hang_up": embeddings().embed_query(f"after the cut {number}")}


two_rounds(cacheable, rest)
