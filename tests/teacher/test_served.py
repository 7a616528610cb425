"""Served teachers: labels against the model's own in float64, faults, who the server is, and what is refused."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from softlabels import LabelsConfig, label, open_store
from softlabels.errors import (
    ConfigError,
    Interrupted,
    LogitsError,
    MissingExtra,
    NoAnswer,
    OtherLogits,
    SpecMismatch,
    TeacherError,
    UserError,
)
from softlabels.foreign.dialects import DIALECTS
from softlabels.foreign.rows import Unfit
from softlabels.jobs.watch import Watch
from softlabels.store.json_files import read_json
from softlabels.store.paths import PLAN
from softlabels.store.spec import Plan
from softlabels.system.local import LocalFolder
from softlabels.system.web import Limits, Unusable, WebServer
from softlabels.teacher.config import SERVED, MemberConfig, TeacherConfig
from softlabels.teacher.ensemble import load_ensemble
from softlabels.teacher.served import Served, load_teacher, sentinels_of
from softlabels.transfer import TransferRows
from softlabels.transfer.alignment import alignment
from tests.models.lm_samples import GPT2_LM, saved_lm
from tests.teacher.sequences import LENGTH, TOKENS, exact, token_rows
from tests.teacher.stand_in import TRANSIENT, WRONG, Model, StandIn, model_of, running

K, ROWS = 5, 36
KINDS = ("vllm", "sglang", "openai")
TOPK = LabelsConfig(encoding="topk", k=K, rows_per_shard=16, rows_per_chunk=16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_lm(tmp_path_factory.mktemp("lm") / "model", GPT2_LM | {"vocab_size": TOKENS})


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    """Of the checkpoint, which answers a prompt once."""
    known: dict[tuple[int, ...], np.ndarray] = {}
    made = model_of(checkpoint)

    def log_probs(tokens: Any) -> np.ndarray:
        if tuple(tokens) not in known:
            known[tuple(tokens)] = made(tokens)
        return known[tuple(tokens)]

    return log_probs


@pytest.fixture(scope="module")
def rows() -> TransferRows:
    return token_rows(np.random.default_rng(17), ROWS)


@pytest.fixture
def server(model: Model) -> Iterator[StandIn]:
    with running(StandIn(model)) as found:
        yield found


def asked(server: StandIn, **changes: Any) -> Served:
    """A teacher of this server that waits for nothing long."""
    given: dict[str, Any] = {
        "concurrency": 8, "read_timeout": 60, "timeout": 60, "connect_timeout": 60, "tries": 3, "dtype": "float32",
    }  # fmt: skip
    teacher = Served(server.url, "tiny", server.kind, **given | changes)  # type: ignore[arg-type]
    teacher.web.limits = replace(teacher.web.limits, backoff=0.001)
    return teacher


def at_victim(name: str, rows: TransferRows) -> Any:
    """A fault that the request for one row meets, none of the sentinels, whose first positions count."""
    counts = alignment(rows.inputs).mask[:, :3].all(axis=1)
    counts[sentinels_of(rows)] = False
    row = rows.inputs[np.flatnonzero(counts)[0]]
    victim = tuple(row[0][row[1] > 0].tolist())
    return lambda number, tokens: name if tokens == victim else ""


def once(name: str, at: int) -> Any:
    """A fault that only the request with this number meets."""
    return lambda number, tokens: name if number == at else ""


@pytest.mark.parametrize(
    ("kind", "layout"), [("vllm", "zarr"), ("sglang", "arrow"), pytest.param("openai", "zarr", marks=pytest.mark.slow)]
)
def test_labels_are_the_models_own(
    kind: str, layout: Any, tmp_path: Path, model: Model, rows: TransferRows, checkpoint: Path
) -> None:
    with running(StandIn(model, kind)) as server:
        made = label(rows, asked(server), replace(TOPK, layout=layout), tmp_path)["train"]
        assert server.at_once > 1
        assert server.at_once <= 8
    assert made.spec.teacher.members[0].model.startswith("tiny (")
    assert made.spec.encoding.known_at == 1
    network = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).double().eval()
    store, where = open_store(tmp_path, split="train"), alignment(rows.inputs)
    got = store.log_probs(range(ROWS), temperature=1.0)
    tail = 0.0
    for number, row in enumerate(rows.inputs):
        tokens = torch.from_numpy(row[0][row[1] > 0].astype(np.int64))[None]
        with torch.inference_mode():
            log_p = exact(network(tokens, attention_mask=torch.ones_like(tokens)).logits[0].numpy(), 1.0)
        for place in np.flatnonzero(where.mask[number]):
            top = np.argsort(-log_p[place], kind="stable")[:K]
            ours = got[number, place]
            span = log_p[place].max() - log_p[place][top]
            assert np.abs(ours[top] - log_p[place][top]).max() <= 2e-3 + 2**-10 * span.max()
            rest, theirs = np.delete(np.exp(ours), top).sum(), np.delete(np.exp(log_p[place]), top).sum()
            assert rest == pytest.approx(theirs, abs=2e-3)
            tail = max(tail, theirs)
            own = store.column("label_logit")[number, place, 0] + log_p[place].max()
            assert own == pytest.approx(log_p[place][where.next_token[number, place]], abs=2e-2)
    assert tail > 0.05  # it matters


def test_what_another_try_mends_changes_nothing(tmp_path: Path, server: StandIn, rows: TransferRows) -> None:
    whole = label(rows, asked(server), TOPK, tmp_path / "whole")["train"]
    faults = dict(zip(range(20, 20 + 2 * len(TRANSIENT), 2), TRANSIENT, strict=True))
    server.asked.clear()
    server.fault = lambda number, tokens: faults.get(number, "")
    made = label(rows, asked(server, tries=20, read_timeout=0.6, timeout=1.2), TOPK, tmp_path / "faults")["train"]
    assert made.digest == whole.digest
    least = len(faults) + ROWS - 1 + 16 + 3 * 2  # one row has no position; sentinels; FEW a shard
    assert len(server.asked) >= least


@pytest.mark.parametrize("kind", ["vllm", *(pytest.param(each, marks=pytest.mark.slow) for each in KINDS[1:])])
def test_wrong_answers_are_refused(kind: str, tmp_path: Path, model: Model, rows: TransferRows) -> None:
    said = {
        "neighbour": "tokens that are not the", "shifted": "does not go with|lacks token",
        "few": "a smaller labels.k", "nothing": "has no distribution", "one less": "tokens and", "NaN": "NaN or infinite",
        "above 0": "of position 0 sum to|does not go with", "mass": "of position 0 sum to|does not go with",
        "redirect": "redirect to http://elsewhere.invalid", "400": "no such sampling", "huge": "more than",
        "texts": "Expected `float.*got `str`", "compressed": "sends compressed answers",
    }  # fmt: skip
    with running(StandIn(model, kind)) as server:
        for name in WRONG:
            server.fault = at_victim(name, rows)
            with pytest.raises((UserError, LogitsError), match=said[name]):
                label(rows, asked(server), TOPK, tmp_path / name)
            assert not list((tmp_path / name).rglob("manifest.json")), name


def test_a_server_that_gives_up(tmp_path: Path, server: StandIn, rows: TransferRows) -> None:
    server.fault = lambda number, tokens: "500" if number > 24 else ""
    with pytest.raises(NoAnswer, match=r"in 3 tries: 500 .*EngineDeadError.*run the same command again") as raised:
        label(rows, asked(server), TOPK, tmp_path)
    assert raised.value.exit_code == 75
    server.fault = lambda number, tokens: ""
    before = len(server.asked)
    label(rows, asked(server), TOPK, tmp_path)
    assert len(server.asked) > before
    gone = asked(server, tries=2)
    gone.web.url = "http://127.0.0.1:9"
    with pytest.raises(NoAnswer, match="no answer in 2 tries: connect error"):
        label(rows, gone, TOPK, tmp_path / "gone")


def test_waits_that_the_server_asks_for(server: StandIn, rows: TransferRows, tmp_path: Path) -> None:
    from tests.teacher import stand_in

    stand_in.FAULTS["later"] = lambda handler, body: handler.send(429, {}, Retry_After="4000")
    server.fault = once("later", 3)
    with pytest.raises(NoAnswer, match="and asks to wait 4000 s: 429"):
        label(rows, asked(server), TOPK, tmp_path)


def test_a_resumed_pass_asks_for_what_is_missing(tmp_path: Path, server: StandIn, rows: TransferRows) -> None:
    whole = label(rows, asked(server), TOPK, tmp_path / "whole")["train"]
    server.asked.clear()
    server.fault = lambda number, tokens: "400" if number > 16 + 15 + 2 + 4 else ""  # in the second shard
    teacher = asked(server)
    teacher.rows_at_once = 8
    with pytest.raises(ConfigError, match="no such sampling"):
        label(rows, teacher, TOPK, tmp_path / "store")
    server.fault = lambda number, tokens: ""
    server.asked.clear()
    made = label(rows, asked(server), TOPK, tmp_path / "store")["train"]
    assert made.digest == whole.digest
    finished = {tuple(row[0][row[1] > 0].tolist()) for row in rows.inputs[:16]} - _sentinels(rows)
    assert finished
    assert not finished & {*server.asked}
    assert len(server.asked) == 16 + ROWS - 16 + 2 * 2


def _sentinels(rows: TransferRows) -> set[tuple[int, ...]]:
    return {tuple(row[0][row[1] > 0].tolist()) for row in rows.inputs[sentinels_of(rows)]}


def test_another_model_is_refused(tmp_path: Path, model: Model, rows: TransferRows, server: StandIn) -> None:
    server.fault = lambda number, tokens: "400" if number > 16 + 16 + 2 + 8 else ""
    first = asked(server)
    first.rows_at_once = 16
    with pytest.raises(ConfigError, match="no such sampling"):
        label(rows, first, TOPK, tmp_path)
    server.fault = lambda number, tokens: ""
    noise = np.random.default_rng(5)
    server.model = lambda tokens: model(tokens) + noise.normal(0, 0.6, model(tokens).shape)
    with pytest.raises(TeacherError, match="other log-probabilities when they are asked together than one by one"):
        label(rows, asked(server), TOPK, tmp_path)
    server.model = lambda tokens: np.roll(model(tokens), 1, axis=-1)  # the same always, and another one
    with pytest.raises(OtherLogits, match=r"is not the model that .* was begun with, although the name") as told:
        label(rows, asked(server), TOPK, tmp_path)
    assert "tiny (vLLM 0.11.2)" in str(told.value)
    server.model, server.version = model, "0.12.0"
    with pytest.raises(SpecMismatch, match=r"tiny \(vLLM 0\.11\.2\).*tiny \(vLLM 0\.12\.0\)"):
        label(rows, asked(server), TOPK, tmp_path)
    server.version = "0.11.2"
    jitter = np.random.default_rng(6)
    server.model = lambda tokens: model(tokens) + jitter.normal(0, 1e-4, model(tokens).shape)
    label(rows, asked(server), TOPK, tmp_path)  # batches round otherwise


def test_another_model_in_the_middle_of_a_pass(
    tmp_path: Path, model: Model, rows: TransferRows, server: StandIn
) -> None:
    def swapped(tokens: Any) -> np.ndarray:
        return np.roll(model(tokens), 1 if len(server.asked) > 16 + 18 + 5 else 0, axis=-1)

    server.model = swapped
    teacher = asked(server)
    teacher.rows_at_once = 16
    with pytest.raises(OtherLogits, match="is not the model that the store was begun with"):
        label(rows, teacher, TOPK, tmp_path)
    server.model = model
    before = len(server.asked)
    made = label(rows, asked(server), TOPK, tmp_path)["train"]
    with running(StandIn(model)) as fresh:
        assert made.digest == label(rows, asked(fresh), TOPK, tmp_path / "fresh")["train"].digest
    assert len(server.asked) - before < 16 + ROWS  # the first shard was kept


def test_what_the_store_keeps_of_the_sentinels(
    tmp_path: Path, server: StandIn, rows: TransferRows, model: Model
) -> None:
    made = label(rows, asked(server), TOPK, tmp_path)["train"]
    kept = read_json(LocalFolder(tmp_path / "train"), PLAN, Plan).about.sentinels
    where, expected = alignment(rows.inputs), []
    for number in sentinels_of(rows):
        log_p = model(rows.inputs[number][0][rows.inputs[number][1] > 0].tolist())
        at = np.flatnonzero(where.mask[number])
        expected += log_p[at, where.next_token[number, at]].tolist()
    assert np.allclose(np.array(kept), expected, atol=1e-6)
    assert made.about.sentinels == kept


def test_keys_are_neither_stored_nor_shown(
    tmp_path: Path, server: StandIn, rows: TransferRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "s3cret-value"
    with pytest.raises(ConfigError, match="answers 401"):
        label(rows, asked(server), TOPK, tmp_path)
    with pytest.raises(ConfigError, match="the environment variable that key_env names is not set") as told:
        asked(server, key_env="s3cret-value")
    assert "s3cret" not in str(told.value)
    monkeypatch.setenv("OWN_KEY", "s3cret-value\n")
    with pytest.raises(ConfigError, match="holds no key") as told:
        asked(server, key_env="OWN_KEY")
    assert "s3cret" not in str(told.value)
    monkeypatch.setenv("OWN_KEY", "s3cret-value")
    lines: list[str] = []
    label(rows, asked(server, key_env="OWN_KEY"), TOPK, tmp_path, watch=Watch(lines.append, lines.append))
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(b"s3cret" in data for data in files)
    assert not any("s3cret" in line for line in lines)
    server.fault = lambda number, tokens: "echo"
    from tests.teacher import stand_in

    stand_in.FAULTS["echo"] = lambda handler, body: handler.send(400, {"error": handler.headers["Authorization"]})
    with pytest.raises(ConfigError, match=r"Bearer \(key\)") as told:
        label(rows, asked(server, key_env="OWN_KEY"), TOPK, tmp_path / "other")
    assert "s3cret" not in str(told.value)
    with pytest.raises(ConfigError, match="url holds a password") as told:
        Served("http://me:s3cret@host", "tiny")
    assert "s3cret" not in str(told.value)


def test_answers_keyed_by_text_are_refused(tmp_path: Path, model: Model, rows: TransferRows) -> None:
    with running(StandIn(model, "openai")) as server:
        whole = server.answered
        server.answered = lambda tokens, k, body: whole(tokens, k, body | {"return_tokens_as_token_ids": False})  # type: ignore[method-assign]
        with pytest.raises(
            LogitsError, match=r"names a token by its text, 'the', which different tokens may have.*vLLM"
        ):
            label(rows, asked(server), TOPK, tmp_path)


def test_limits_of_the_server_are_said(tmp_path: Path, server: StandIn, rows: TransferRows) -> None:
    server.most = 3
    with pytest.raises(ConfigError, match="greater than max allowed: 3"):
        label(rows, asked(server), TOPK, tmp_path)
    server.context = LENGTH
    with pytest.raises(ConfigError, match=f"sequences.length={LENGTH - 1}, or start the server"):
        label(rows, asked(server), TOPK, tmp_path)
    server.name = "other"
    with pytest.raises(ConfigError, match=r"serves no model 'tiny', but other"):
        label(rows, asked(server), TOPK, tmp_path)
    assert not tmp_path.exists() or not [*tmp_path.iterdir()]


def test_settings_that_do_not_fit(tmp_path: Path, rows: TransferRows, server: StandIn) -> None:
    for labels, said in (
        (LabelsConfig(), "labels.encoding is dense"),
        (LabelsConfig(encoding="topk", nodes=5), "labels.nodes is given"),
        (LabelsConfig(encoding="topk", min_temperature=0.5), "labels.min_temperature is given"),
        (LabelsConfig(encoding="topk", tail="renormalised"), "labels.tail is given"),
        (LabelsConfig(encoding="topk", reduce="geometric"), "labels.reduce is given"),
    ):
        with pytest.raises(ConfigError, match=said):
            label(rows, asked(server), labels, tmp_path)
    with pytest.raises(ConfigError, match="are no rows of tokens"):
        label(replace(rows, sequence=None), asked(server), TOPK, tmp_path)
    for wrong, said in (
        ({"concurrency": 0}, "concurrency is 0"), ({"tries": 1.5}, "tries is 1.5"), ({"timeout": "1"}, "timeout is '1'"),
        ({"dtype": "int8"}, "dtype is 'int8'"), ({"tolerance": float("nan")}, "tolerance is nan"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            asked(server, **wrong)
    for url in (
        "localhost:8000", "ftp://host", "http://host/?key=1", "http://[", "http://host:port", "http://host\n", " http://host",
        "http://host#", "http://host?", "http://host/\a", "http://" + "a" * 70_000,
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="url is not the address of a server"):
            Served(url, "tiny")
    for given in ({"url": 8000}, {"model": 7}, {"key_env": 1234}):
        with pytest.raises(ConfigError, match=f"{next(iter(given))} is no text; write it in quotes"):
            Served(**{"url": "http://host", "model": "tiny"} | given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"server is \['vllm'\]"):
        Served("http://host", "tiny", ["vllm"])  # type: ignore[arg-type]
    assert Served("http://host:1/v1/", "tiny").web.url == "http://host:1"


def test_a_recipes_teacher(server: StandIn) -> None:
    member = MemberConfig(SERVED, {"url": server.url, "model": "tiny", "concurrency": 4})
    teacher = load_teacher(TeacherConfig((member,), name="mine", licence="MIT", batch_size=12))
    assert isinstance(teacher, Served)
    assert (teacher.name, teacher.licence, teacher.rows_at_once) == ("mine", "MIT", 12)
    assert teacher.web.limits == Limits(in_flight=4, longest=600.0)
    for config, said in (
        (TeacherConfig((member, member)), "a served teacher must be the only one"),
        (TeacherConfig((member,), folds=2), "teacher.folds of a served teacher"),
        (
            TeacherConfig((member,), precision="bfloat16", device="cuda"),
            "teacher.precision, teacher.device of a served teacher",
        ),
        (TeacherConfig((replace(member, weights="a.safetensors"),)), "weights of a served teacher"),
        (TeacherConfig((MemberConfig(SERVED, {"url": server.url}),)), "cannot be called with these arguments"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_teacher(config)
    with pytest.raises(ConfigError, match="this runs the teacher's models itself"):
        load_ensemble(TeacherConfig((member,)))


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtra, match=r"needs the package httpx2.*softlabels\[served\]"):
        Served("http://host", "tiny")


def test_a_rate_and_a_signal(server: StandIn, rows: TransferRows, tmp_path: Path) -> None:
    import time

    began = time.monotonic()
    label(rows, asked(server, requests_per_second=200), TOPK, tmp_path / "slow")
    assert time.monotonic() - began > (len(server.asked) - 1) / 200
    server.fault = lambda number, tokens: "stall"
    stops = Watch(lambda line: None, lambda line: None, lambda: server.at_once > 0)
    with pytest.raises(Interrupted, match="was asked; run the same command again"):
        label(rows, asked(server, read_timeout=60, timeout=60), TOPK, tmp_path / "stopped", watch=stops)


def test_a_wait_that_the_server_asks_for_is_heeded_by_those_that_wait_for_their_turn() -> None:
    import time

    web = WebServer("http://host", limits=Limits(rate=50))

    async def trial() -> None:
        began: list[float] = []

        async def one() -> None:
            await web._turn()
            began.append(time.monotonic())

        asked = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)
        web._free_at = until = time.monotonic() + 0.2
        await asyncio.gather(*asked)
        assert [at >= until for at in began] == [False, True, True]

    asyncio.run(trial())


def test_answers_that_cannot_be_read() -> None:
    read = DIALECTS["openai"].row
    with pytest.raises(Unusable):
        read(b'{"choices": [{"text": "x = [NaN, 1]", "logpr')  # the text of a row, of an answer that is cut off
    with pytest.raises(Unfit, match="Number out of range"):
        read(b'{"choices": [{"logprobs": {"tokens": [], "token_logprobs": [-1e400, ' + b"9" * 5000 + b"]}}]}")
    own, top = [[None, 1, None], [-1.0, 2, None]], [None, [[-1.0, 2, None], [None, 3, None]]]
    answer = {"meta_info": {"prompt_tokens": 2, "input_token_logprobs": own, "input_top_logprobs": top}}
    with pytest.raises(Unfit, match="of position 0 is NaN, or null"):
        DIALECTS["sglang"].row(json.dumps(answer).encode()).require_fit(5, 0.0)


def test_proxies_are_those_of_the_environment(
    server: StandIn, rows: TransferRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    far = asked(server)
    far.web.url = "http://teacher.invalid"
    label(rows, far, TOPK, tmp_path)
    assert server.asked
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    far.web.url = "https://teacher.invalid"
    with pytest.raises(NoAnswer, match="in 3 tries: proxy error: 501"):
        label(rows, far, TOPK, tmp_path)
    for name, value in {"ALL_PROXY": "socks5://me:s3cret@h", "HTTP_PROXY": "http://me:s3/cret@h"}.items():
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=r"a proxy \(.*\) of the environment cannot be used") as told:
            label(rows, asked(server), TOPK, tmp_path)
        assert "s3" not in str(told.value)
        monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE or SSL_CERT_DIR of the environment cannot be used"):
        label(rows, asked(server), TOPK, tmp_path)


def test_certificates(
    model: Model, rows: TransferRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with running(StandIn(model), tls=context) as server:
        with pytest.raises(
            ConfigError, match=r"the certificate of https://127.* is not trusted.*SSL_CERT_FILE=ca\.pem"
        ):
            label(rows, asked(server), TOPK, tmp_path / "store")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        label(rows, asked(server), TOPK, tmp_path / "store")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(1), now + timedelta(1))
    at = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    signed = made.add_extension(at, critical=False).sign(key, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    return path
