"""Files as DistillKit, axolotl, vLLM and SGLang write them, made by their published schemas, and what they say, read by plain
Python: no code of the product, floats of 64 bits.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

CLASSES = 300
Said = list[
    tuple[list[int], dict[int, dict[int, float]]]
]  # of each row its tokens, and of positions log-probabilities by id


def write_tokenizer(folder: Path) -> str:
    """A tokenizer of 300 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": 0} | {f"w{number}": number for number in range(1, CLASSES)}
    made = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")
    wrapped.chat_template = "{% for each in messages %}{{ each['content'] }} {% endfor %}"
    wrapped.save_pretrained(folder)
    return str(folder)


def teacher(
    rng: np.random.Generator, lengths: tuple[int, ...], scale: float = 3.0
) -> list[tuple[list[int], np.ndarray]]:
    """Rows of tokens that a teacher wrote, with its logits (L, C): token p + 1 is drawn from those at p."""
    rows = []
    for length in lengths:
        z = rng.normal(size=(length, CLASSES)) * scale
        tokens = [int(rng.integers(1, CLASSES))]
        for each in z[:-1]:
            p = np.exp(each - each.max())
            tokens.append(int(rng.choice(CLASSES, p=p / p.sum())))
        rows.append((tokens, z))
    return rows


def log_softmax(z: np.ndarray) -> np.ndarray:
    """Of float64."""
    return z - z.max(-1, keepdims=True) - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True))


def largest(log_p: np.ndarray, k: int) -> list[int]:
    """The k most probable classes of (C,), the most probable first."""
    return [int(number) for number in np.argsort(-log_p, kind="stable")[:k]]


def write_vllm(path: Path, rows: list[tuple[list[int], np.ndarray]], k: int) -> None:
    """Responses of completions, a line each: k entries and the prompt's own token."""
    with path.open("w") as file:
        for tokens, z in rows:
            entries: list[Any] = [None]
            for log_p, own in zip(log_softmax(z), tokens[1:], strict=False):
                ranked = largest(log_p, CLASSES)
                kept = dict.fromkeys([own, *ranked[:k]])  # the own token first, as vLLM has it
                entries.append({
                    str(number): {"logprob": float(log_p[number]), "rank": ranked.index(number) + 1, "decoded_token": "w"}
                    for number in kept
                })  # fmt: skip
            choice = {"index": 0, "text": "", "prompt_token_ids": tokens, "prompt_logprobs": entries}
            file.write(json.dumps({"id": "cmpl", "object": "text_completion", "choices": [choice]}) + "\n")


def write_sglang(path: Path, rows: list[tuple[list[int], np.ndarray]], k: int) -> None:
    """Responses of /generate, the first two as a batch."""
    answers = []
    for tokens, z in rows:
        own: list[Any] = [[None, tokens[0], None]]
        top: list[Any] = [None]
        for log_p, token in zip(log_softmax(z), tokens[1:], strict=False):
            own.append([float(log_p[token]), token, "w"])
            top.append([[float(log_p[number]), number, None] for number in largest(log_p, k)])
        meta = {
            "prompt_tokens": len(tokens),
            "input_token_logprobs": own,
            "input_top_logprobs": top,
            "cached_tokens": 0,
        }
        answers.append({"text": "", "meta_info": meta})
    lines = [answers[:2], *answers[2:]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def axolotl_rows(
    rows: list[tuple[list[int], np.ndarray]], k: int, form: int, temperature: float = 1.0
) -> list[dict[str, Any]]:
    """Rows of form 1 or 2 of which a list stands at each token but the first, the distribution of that token ("own")."""
    made = []
    for tokens, z in rows:
        kept = [(log_p, largest(log_p, k)) for log_p in log_softmax(z / temperature)[:-1]]
        numbers = [[float(log_p[number]) for number in ids] for log_p, ids in kept]
        row: dict[str, Any] = {
            "messages": [{"role": "user", "content": " ".join(f"w{t}" for t in tokens)}],
            "logprobs": numbers,
        }
        if form == 1:
            row["logprobs"] = [
                [{"logprob": value, "token": f"token_id:{number}"} for value, number in zip(values, ids, strict=True)]
                for values, (_, ids) in zip(numbers, kept, strict=True)
            ]
        else:
            row["target_token_ids"] = [ids for _, ids in kept]
        made.append(row)
    return made


def write_lines(path: Path, records: list[Any]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(each) + "\n" for each in records))


# What the files say.


def said_by_vllm(path: Path, k: int) -> Said:
    """Of the ranks up to k."""
    found: Said = []
    for line in path.read_text().splitlines():
        choice = json.loads(line)["choices"][0]
        entries = choice["prompt_logprobs"]
        by_position = {
            place - 1: {int(n): e["logprob"] for n, e in entries[place].items() if e["rank"] <= k}
            for place in range(1, len(entries))
        }
        found.append((choice["prompt_token_ids"], by_position))
    return found


def said_by_sglang(path: Path) -> Said:
    """The same."""
    found: Said = []
    for line in path.read_text().splitlines():
        answers = json.loads(line)
        for answer in answers if isinstance(answers, list) else [answers]:
            meta = answer["meta_info"]
            top = meta["input_top_logprobs"]
            by_position = {place - 1: {n: value for value, n, _ in top[place]} for place in range(1, len(top))}
            found.append(([n for _, n, _ in meta["input_token_logprobs"]], by_position))
    return found


def said_by_axolotl(path: Path) -> Said:
    """Aligned from the right; the list at token q is the distribution of token q."""
    found: Said = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        tokens = [int(word[1:]) for word in row["messages"][0]["content"].split()]
        by_position = {}
        for number, entries in enumerate(row["logprobs"]):
            token = len(tokens) - len(row["logprobs"]) + number
            if "target_token_ids" in row:
                by_position[token - 1] = dict(zip(row["target_token_ids"][number], entries, strict=True))
            else:
                by_position[token - 1] = {int(each["token"][9:]): each["logprob"] for each in entries}
        found.append((tokens, by_position))
    return found


def said_by_distillkit(folder: Path) -> Said:
    """Its bytes, decoded a bit and a number at a time."""
    config = yaml.safe_load((folder / "compression_config.yaml").read_text())
    found: Said = []
    for row in pq.read_table(folder / "data_0.parquet").to_pylist():
        by_position = {}
        for place, (data, packed) in enumerate(zip(row["compressed_logprobs"], row["bytepacked_indices"], strict=True)):
            ids = _integers(bytes(packed), math.ceil(math.log2(config["d"])), config["k"])
            by_position[place] = dict(zip(ids, _numbers(bytes(data), config), strict=True))
        found.append((row["input_ids"], by_position))
    return found


def _integers(data: bytes, width: int, count: int) -> list[int]:
    bits = "".join(f"{byte:08b}" for byte in data)
    return [int(bits[number * width : (number + 1) * width], 2) for number in range(count)]


def _float(data: bytes, dtype: str) -> float:
    if dtype == "bfloat16":
        return float(struct.unpack("<f", b"\0\0" + data)[0])
    return float(struct.unpack({"float16": "<e", "float32": "<f", "float64": "<d"}[dtype], data)[0])


_WIDTH = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}


def _numbers(data: bytes, config: dict[str, Any]) -> list[float]:
    at = 0

    def take(dtype: str) -> float:
        nonlocal at
        at += _WIDTH[dtype]
        return _float(data[at - _WIDTH[dtype] : at], dtype)

    values = [take(config["exact_dtype"]) for _ in range(config["exact_k"])]
    terms = config["polynomial_terms"] or []
    coefficients = [take(config["term_dtype"]) for _ in terms]
    rest = config["k"] - config["exact_k"]
    tail = []
    for number in range(rest):
        t = number / (rest - 1) if config["normalize_t"] else float(number)
        each = [math.sqrt(t) if term == "sqrt" else math.exp(t) if term == "exp" else t**term for term in terms]
        tail.append(sum(c * x for c, x in zip(coefficients, each, strict=True)))
    start = 0
    for each_bin in config["residual_bins"]:
        scale, bits, count = take(each_bin["scale_dtype"]), each_bin["element_bits"], each_bin["num_elements"]
        size = (bits * count + 7) // 8
        for number, value in enumerate(_integers(data[at : at + size], bits, count)):
            tail[start + number] += scale * (2 * value - 1 if bits == 1 else value - 2 ** (bits - 1))
        at, start = at + size, start + count
    assert at == len(data)
    values += tail
    if config["delta_encoding"]:
        values = [float(each) for each in np.cumsum(values)]
    return values


def packed(folder: Path, out: Path) -> None:
    """The rows of a capture as one packed row, whose segments are numbered from 1."""
    rows = pq.read_table(folder / "data_0.parquet").to_pylist()
    blank = {name: [0] * len(rows[0][name][0]) for name in ("compressed_logprobs", "bytepacked_indices")}
    whole: dict[str, list[Any]] = {
        "input_ids": [],
        "compressed_logprobs": [],
        "bytepacked_indices": [],
        "attention_mask": [],
    }
    for number, row in enumerate(rows, 1):
        whole["input_ids"] += row["input_ids"]
        whole["attention_mask"] += [number] * len(row["input_ids"])
        for name, nothing in blank.items():
            whole[name] += [*row[name], nothing]  # the last token of a segment predicts nothing
    out.mkdir()
    pq.write_table(pa.table({name: [values] for name, values in whole.items()}), out / "packed.parquet")
    (out / "compression_config.yaml").write_bytes((folder / "compression_config.yaml").read_bytes())
