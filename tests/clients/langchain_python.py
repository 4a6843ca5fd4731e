"""What an application gets from LangChain's OpenAIEmbeddings, written down as one JSON document."""

import asyncio

import tiktoken
from langchain_openai import OpenAIEmbeddings

from common import BASE_URL, KEY, SMALL, two_rounds

# LangChain sends arrays of token arrays. The real ranks are a download; which numbers a text becomes does not matter here.
BYTES = tiktoken.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={})
tiktoken.encoding_for_model = lambda _model: BYTES
tiktoken.get_encoding = lambda _name: BYTES


def embeddings(**settings):
    return OpenAIEmbeddings(model=SMALL, base_url=BASE_URL, api_key=KEY, timeout=30, **settings)


def cacheable():
    documents = ["one", "two", "one", "a longer document"]
    return {
        "documents": embeddings(chunk_size=3).embed_documents(documents),
        "query": embeddings().embed_query("two"),
        "texts": embeddings(check_embedding_ctx_length=False, dimensions=64).embed_documents(documents),
        "async": asyncio.run(embeddings().aembed_documents(documents)),
    }


two_rounds(cacheable, lambda _number: {})
