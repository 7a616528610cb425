"""A server that answers as vLLM, SGLang and OpenAI-compatible ones are published to do, by a small language model of
transformers, over real HTTP; and that fails in all the ways that a test asks for.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from tests.loopback import serving

Model = Callable[[Sequence[int]], np.ndarray]  # tokens (L,) to log-probabilities (L, V) of each's next
VERSIONS = {"vllm": "0.11.2", "sglang": "0.5.6", "openai": ""}


def model_of(folder: Any) -> Model:
    """A checkpoint, in float32."""
    import transformers

    network: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    network.eval()
    lock = threading.Lock()

    @torch.inference_mode()
    def log_probs(tokens: Sequence[int]) -> np.ndarray:
        ids = torch.tensor([list(tokens)])
        with lock:
            logits = network(ids, attention_mask=torch.ones_like(ids)).logits[0]
        return torch.log_softmax(logits.float(), dim=-1).numpy()

    return log_probs


def entries(log_p: np.ndarray, k: int, token: int) -> dict[int, tuple[float, int]]:
    """The k most likely tokens and the next one: log-probability and rank of each; the next one first, as vLLM has it."""
    order = np.argsort(-log_p, kind="stable")
    ranks = {int(each): rank for rank, each in enumerate(order, start=1)}
    return {int(each): (float(log_p[each]), ranks[int(each)]) for each in [token, *order[:k].tolist()]}


class StandIn:
    """What the server is, and what happened to it.

    Attributes:
        model: its weights. kind: whose answers it gives. name, version, context, most: what it says of itself and allows.
        fault: given the number of a request from 1 up and its tokens, the name of what is to go wrong, or "".
        asked: the prompts, in the order in which they came. at_once: the most that were asked at one time. keys: of requests.
    """

    def __init__(self, model: Model, kind: str = "vllm", *, context: int = 64, most: int = 20) -> None:
        self.model, self.kind, self.context, self.most = model, kind, context, most
        self.hidden: Model | None = None  # tokens (L,) to hidden states (L, d), of a server that gives them
        self.name, self.version = "tiny", VERSIONS[kind]
        self.fault: Callable[[int, tuple[int, ...]], str] = lambda number, tokens: ""
        self.asked: list[tuple[int, ...]] = []
        self.keys: set[str | None] = set()
        self.at_once, self._now, self._lock = 0, 0, threading.Lock()
        self.key: str | None = None
        self.pause = 0.0
        self.url = ""

    def counted(self, tokens: tuple[int, ...]) -> int:
        with self._lock:
            self.asked.append(tokens)
            self._now += 1
            self.at_once = max(self.at_once, self._now)
            return len(self.asked)

    def done(self) -> None:
        with self._lock:
            self._now -= 1

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and JSON of a request."""
        if path != {"sglang": "/generate"}.get(self.kind, "/v1/completions"):
            return 404, {"detail": "Not Found"}
        tokens = body["input_ids"] if self.kind == "sglang" else body["prompt"]
        k = {"vllm": "prompt_logprobs", "sglang": "top_logprobs_num", "openai": "logprobs"}[self.kind]
        if self.kind != "sglang" and body["model"] != self.name:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}}
        if body[k] > self.most:
            words = f"Requested prompt logprobs of {body[k]}, which is greater than max allowed: {self.most}"
            return 400, {"error": {"message": words, "type": "BadRequestError", "code": 400}}
        if body.get("return_hidden_states") and self.hidden is None:
            words = (
                "The server is not configured to return the hidden states. Please set `--enable-return-hidden-states`."
            )
            return 400, {"error": {"message": words, "code": 400}}
        if len(tokens) + 1 > self.context:
            return 400, {"error": {"message": f"maximum context length is {self.context} tokens", "code": 400}}
        return 200, self.answered(tokens, body[k], body)

    def answered(self, tokens: list[int], k: int, body: dict[str, Any]) -> Any:
        log_p = self.model(tokens)
        given = [entries(log_p[place], k, token) for place, token in enumerate(tokens[1:])]
        if self.kind == "vllm":
            assert body["return_token_ids"]
            assert body["max_tokens"] == 1
            dicts = [
                {str(t): {"logprob": lp, "rank": rank, "decoded_token": "the"} for t, (lp, rank) in each.items()}
                for each in given
            ]
            choice = {"index": 0, "text": " the", "prompt_logprobs": [None, *dicts], "prompt_token_ids": tokens}
            return {"id": "cmpl-1", "object": "text_completion", "model": self.name, "choices": [choice]}
        own = [(each[token][0], token, None) for each, token in zip(given, tokens[1:], strict=True)]
        if self.kind == "sglang":
            assert body["return_logprob"]
            assert body["logprob_start_len"] == 0
            top = [
                sorted(((lp, t, None) for t, (lp, rank) in each.items() if rank <= k), reverse=True) for each in given
            ]
            meta = {
                "prompt_tokens": len(tokens), "input_token_logprobs": [(None, tokens[0], None), *own],
                "input_top_logprobs": [None, *top], "completion_tokens": 1,
            }  # fmt: skip
            if body.get("return_hidden_states") and self.hidden is not None:
                meta["hidden_states"] = [self.hidden(tokens).tolist()]
            return {"text": " the", "output_ids": [5], "meta_info": meta}
        assert body["echo"]
        last = entries(log_p[-1], k, int(np.argmax(log_p[-1])))
        by_id = body["return_tokens_as_token_ids"]

        def named(token: int) -> str:
            return f"token_id:{token}" if by_id else " the"

        logprobs = {
            "tokens": [named(t) for t in [*tokens, next(iter(last))]],
            "token_logprobs": [None, *(lp for lp, _, _ in own), next(iter(last.values()))[0]],
            "top_logprobs": [None, *({named(t): lp for t, (lp, _) in each.items()} for each in [*given, last])],
        }
        return {"object": "text_completion", "choices": [{"index": 0, "text": "", "logprobs": logprobs}]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stand_in: StandIn

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002  # as the base class calls it

    def parse_request(self) -> bool:
        """As a proxy too, which is asked for whole addresses."""
        is_whole = super().parse_request()
        self.path = urlsplit(self.path).path
        return is_whole

    def do_GET(self) -> None:
        known: dict[str, Any] = {
            "/v1/models": {"object": "list", "data": [{"id": self.stand_in.name, "max_model_len": self.stand_in.context}]},
        }  # fmt: skip
        if self.stand_in.version:
            known[{"vllm": "/version", "sglang": "/server_info"}[self.stand_in.kind]] = {
                "version": self.stand_in.version
            }
        if self.allowed():
            self.send(200 if self.path in known else 404, known.get(self.path, {"detail": "Not Found"}))

    def allowed(self) -> bool:
        given = self.headers.get("Authorization")
        self.stand_in.keys.add(given)
        if self.stand_in.key is None or given == f"Bearer {self.stand_in.key}":
            return True
        self.send(401, {"error": "Unauthorized"})
        return False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        tokens = tuple(body.get("input_ids") or body.get("prompt") or ())
        number = self.stand_in.counted(tokens)
        try:
            time.sleep(self.stand_in.pause)
            fault = self.stand_in.fault(number, tokens)
            if fault in FAULTS:
                FAULTS[fault](self, body)
            else:
                self.send(*self.stand_in.answer(self.path, body))
        finally:
            self.stand_in.done()

    def send(self, status: int, body: Any, kind: str = "application/json", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def right(self, body: dict[str, Any], change: Callable[[Any, StandIn], Any]) -> None:
        """The right answer, changed."""
        status, found = self.stand_in.answer(self.path, body)
        self.send(status, change(found, self.stand_in))

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


def _cut_off(handler: _Handler, body: dict[str, Any]) -> None:
    """Half of the body, and an end that says it is whole."""
    data = json.dumps(handler.stand_in.answer(handler.path, body)[1]).encode()
    handler.send(200, data[: len(data) // 2])


def _short(handler: _Handler, body: dict[str, Any]) -> None:
    """Half of the body that was promised, and the end of the connection."""
    data = json.dumps(handler.stand_in.answer(handler.path, body)[1]).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def _stall(handler: _Handler, body: dict[str, Any]) -> None:
    time.sleep(1.5)
    handler.close_connection = True


def _drip(handler: _Handler, body: dict[str, Any]) -> None:
    """A byte now and then, so that no single pause is long."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(40):
        try:
            handler.wfile.write(b" ")
        except OSError:
            break
        time.sleep(0.05)
    handler.close_connection = True


def _neighbour(handler: _Handler, body: dict[str, Any]) -> None:
    """The answer of another prompt of the same length."""
    name = "input_ids" if handler.stand_in.kind == "sglang" else "prompt"
    handler.send(*handler.stand_in.answer(handler.path, {**body, name: [(token + 1) % 30 for token in body[name]]}))


def edited(change: Callable[[list[Any]], Any]) -> Callable[[_Handler, dict[str, Any]], None]:
    """The right answer, its list of entries of positions changed."""

    def act(handler: _Handler, body: dict[str, Any]) -> None:
        def make(found: Any, of: StandIn) -> Any:
            lists = {
                "vllm": lambda: found["choices"][0]["prompt_logprobs"],
                "sglang": lambda: found["meta_info"]["input_top_logprobs"],
                "openai": lambda: found["choices"][0]["logprobs"]["top_logprobs"],
            }
            change(lists[of.kind]())
            return found

        handler.right(body, make)

    return act


def _each(entry: Any, change: Callable[[float], Any]) -> None:
    """Change the log-probabilities of a position."""
    if isinstance(entry, dict):
        for name, value in entry.items():
            if isinstance(value, dict):
                value["logprob"] = change(value["logprob"])
            else:
                entry[name] = change(value)
    else:
        entry[:] = [(change(lp), t, text) for lp, t, text in entry]


def _fewer(entry: Any) -> None:
    for name in list(entry)[-2:] if isinstance(entry, dict) else ():
        del entry[name]
    if isinstance(entry, list):
        del entry[-2:]


def _shift(entries_: list[Any]) -> None:
    entries_[1:] = [*entries_[2:], entries_[1]]


TRANSIENT: dict[str, Callable[[_Handler, dict[str, Any]], None]] = {  # what another try mends
    "429": lambda handler, body: handler.send(429, {"error": "rate limit"}, Retry_After="0"),
    "500": lambda handler, body: handler.send(500, {"error": "EngineDeadError"}),
    "520": lambda handler, body: handler.send(520, {"error": "of what is before it"}),
    "503": lambda handler, body: handler.send(503, b"<html>starting</html>", "text/html"),
    "reset": lambda handler, body: handler.reset(),
    "cut off": _cut_off,
    "short": _short,
    "stall": _stall,
    "drip": _drip,
    "html": lambda handler, body: handler.send(200, b"<html>Welcome</html>", "text/html"),
    "no json": lambda handler, body: handler.send(200, b"[" * 100_000),
}
WRONG: dict[str, Callable[[_Handler, dict[str, Any]], None]] = {  # what must be seen
    "neighbour": _neighbour,
    "shifted": edited(_shift),
    "few": edited(lambda lists: _fewer(lists[1])),
    "nothing": edited(lambda lists: lists.__setitem__(1, None)),
    "one less": edited(lambda lists: lists.pop()),
    "NaN": edited(lambda lists: _each(lists[1], lambda lp: float("nan"))),
    "above 0": edited(lambda lists: _each(lists[1], lambda lp: lp + 5)),
    "mass": edited(lambda lists: _each(lists[1], lambda lp: -0.1)),
    "redirect": lambda handler, body: handler.send(307, {}, Location="http://elsewhere.invalid/v1/completions"),
    "400": lambda handler, body: handler.send(400, {"error": {"message": "no such sampling"}}),
    "texts": edited(lambda lists: _each(lists[1], str)),
    "compressed": lambda handler, body: handler.send(200, b"no gzip", Content_Encoding="gzip"),
    "huge": lambda handler, body: handler.send(200, b" " * (1 << 22)),
}
FAULTS = TRANSIENT | WRONG


@contextmanager
def running(stand_in: StandIn, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[StandIn]:
    """The server, on a port of its own, while the block runs."""
    handler = type("Handler", (_Handler,), {"stand_in": stand_in})
    with serving(handler, port=port, tls=tls) as stand_in.url:
        yield stand_in
