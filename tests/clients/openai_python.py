"""Prints the results of the openai package in an application, as one JSON document."""

import openai

from common import BASE_URL, KEY, SMALL, TINY, fail_next, two_rounds

client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, timeout=30)


def embed(**fields):
    answer = client.embeddings.create(**fields)
    items = [{"object": item.object, "index": item.index, "embedding": item.embedding} for item in answer.data]
    usage = {"prompt_tokens": answer.usage.prompt_tokens, "total_tokens": answer.usage.total_tokens}
    return {"object": answer.object, "model": answer.model, "items": items, "usage": usage}


def refused(sdk, **fields):
    try:
        sdk.embeddings.create(**fields)
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "type": error.type,
            "param": error.param,
            "message": error.message,
            "body": error.body,
        }
    return "answered"


def cacheable():
    return {
        "single": embed(model=SMALL, input="a gateway that remembers"),
        "batch": embed(model=TINY, input=["one", "two", "three"]),
        "duplicates": embed(model=TINY, input=["x", "y", "x"]),
        "floats": embed(model=SMALL, input="one", encoding_format="float"),
        "base64": embed(model=TINY, input="one", encoding_format="base64"),
        "dimensions": embed(model=SMALL, input="one", dimensions=256),
        "token_lists": embed(model=TINY, input=[[1, 2, 3], [4, 5]]),
        "token_list": embed(model=TINY, input=[1, 2, 3]),
        "user": embed(model=TINY, input="one", user="u-1"),
        "unicode": embed(model=TINY, input=["h\u00e9llo \U0001f600", "tab\tquote\" \\ / < > &", "\u2028 and \u0000", "   "]),
    }


def rest(number):
    return {"errors": errors(), "recovered": recovered(number), "passed": passed()}


def errors():
    once = client.with_options(max_retries=0)
    return {
        "empty_in_list": refused(once, model=TINY, input=["a", ""]),
        "wrong_key": refused(once.with_options(api_key="sk-wrong"), model=TINY, input="one"),
        "missing_model": refused(once, model="missing-1", input="one"),
        "no_dimensions": refused(once, model="text-embedding-ada-002", input="one", dimensions=8),
    }


def recovered(number):
    fail_next({"behaviour": "rate_limit", "retry_after_ms": 20})
    limited = embed(model=TINY, input=f"after the limit {number}")
    fail_next({"behaviour": "hang_up"})
    return {"rate_limit": limited, "hang_up": embed(model=TINY, input=f"after the cut {number}")}


def passed():
    messages = [{"role": "user", "content": "Say hello"}]
    stream = client.chat.completions.create(model="gpt-stub", messages=messages, stream=True)
    whole = client.chat.completions.create(model="gpt-stub", messages=messages)
    return {
        "stream": [chunk.choices[0].delta.content for chunk in stream],
        "chat": whole.choices[0].message.content,
        "models": [model.id for model in client.models.list()],
    }


two_rounds(cacheable, rest)
