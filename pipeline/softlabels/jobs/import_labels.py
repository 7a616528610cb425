"""`import_labels`: a store from a foreign file of top-k log-probabilities of tokens. The file is read twice, a few rows at a
time: once to ask and to count (`import_survey`), once to write. The same call resumes where it stopped.

R rows, L tokens of a row, P = L - 1 positions, K stored tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from softlabels.errors import ConfigError, UserError
from softlabels.foreign.axolotl import Aligned, Axolotl
from softlabels.foreign.distillkit import DistillKit
from softlabels.foreign.rows import ForeignFile, ForeignRow
from softlabels.foreign.served import Sglang, Vllm
from softlabels.jobs.import_survey import Broken, Survey, Values, survey
from softlabels.jobs.store_outputs import split_of
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.labels import NO_LABEL
from softlabels.labels.ensemble import check_temperature
from softlabels.labels.lost import Lost
from softlabels.labels.topk import TopkEncoding
from softlabels.labels.topk_known import KnownTail, known_columns, known_encoding
from softlabels.store.arrays import Arrays, row_arrays
from softlabels.store.columns import LABEL
from softlabels.store.markdown import without_folders
from softlabels.store.new_spec import prepared_by, store_spec
from softlabels.store.records import Manifest
from softlabels.store.root import is_split_folder, write_root
from softlabels.store.same_plan import kept_about, require_same_maker
from softlabels.store.spec import About, MemberSpec, Spec, TeacherSpec
from softlabels.store.writer import StoreWriter, require_room
from softlabels.system.places import Target
from softlabels.transfer.alignment import alignment
from softlabels.transfer.text import load_tokenizer, tokenizer_digest
from softlabels.transfer.vocabulary import vocabulary_of

Format = Literal["distillkit", "axolotl", "vllm", "sglang"]
FORMATS: tuple[Format, ...] = get_args(Format)


class Translated(NamedTuple):
    """An imported store: its manifest, and the report on the file, line by line."""

    manifest: Manifest
    report: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Facts that a foreign file does not contain.

    Attributes:
        tokenizer: the teacher's, a folder or hub id; its tokens are the classes.
        revision: of a tokenizer of the hub.
        known_at: the temperature at which the log-probabilities were taken. DistillKit's compressed captures have 1.
        k: how many entries per position are stored, the largest; by default as many as every position has.
        tail: "uniform": the other classes share the rest of the mass; "renormalised": the entries were scaled to sum to 1.
        column: for axolotl, the column of the lists. aligned: their alignment, see `foreign.axolotl`.
        broken: rows that break a rule: "error", or "skip" to leave them out and count them.

    Example:
        >>> foreign = Foreign(tokenizer="tokenizer", known_at=1.0)
        >>> made = import_labels("answers.jsonl", "stores/told/train", from_format="vllm", foreign=foreign)
    """

    tokenizer: str
    revision: str | None = None
    known_at: float | None = None
    k: int | None = None
    tail: KnownTail = "uniform"
    column: str | None = None
    aligned: Aligned = "next"
    broken: Broken = "error"

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ConfigError(f"k is {self.k}", remedy="give --k from 1 up, or leave it out")


def import_labels(
    path: str | Path,
    store: Target,
    *,
    from_format: Format,
    foreign: Foreign,
    split: str | None = None,
    teacher: str = "imported",
    precision: str | None = None,
    name: str | None = None,
    layout: Literal["zarr", "arrow"] = "zarr",
    about: About | None = None,
    watch: Watch = LOGGED,
) -> Translated:
    """Make a store from a file of DistillKit, axolotl, vLLM or SGLang. docs/translate.md says what each holds.

    The store also holds the tokens, as inputs. Its labels are known at only one temperature (`encoding.known_at`).

    Args:
        path: a file, or a folder of files. store: the folder of one split to write. foreign: see `Foreign`.
        split: the split's name; by default from the store's folder. teacher, name: names of the teacher and the transfer set.
        precision: the teacher's arithmetic. layout: arrow keeps only the positions that each row has.
        about: licences. watch: gets the report, and is asked whether to stop.

    Raises:
        ConfigError: something that the file does not say is missing. UserError: not such a file.
        ClassIdOverflow, LogitsError, AlignmentError: a row that breaks a rule, or lists that are off by one.
        SpecMismatch: `store` was begun with other values. Interrupted: `watch` asked to stop. DiskFull, StorageError.

    Example:
        >>> told = Foreign(tokenizer="tokenizer", known_at=1.0)
        >>> made = import_labels("answers.jsonl", "stores/lm/train", from_format="vllm", foreign=told)
    """
    split = split_of(store, split)
    source, words = _source(Path(path), from_format, foreign), _vocabulary(foreign)
    known_at = _known_at(source, from_format, foreign)
    found = survey(source, words.size, foreign.k or 1, foreign.broken, watch.should_stop)
    found.require_rows(source)
    k = foreign.k or found.fewest
    found.require_tail(source, k, foreign.tail)
    encoding = known_encoding(k, known_at, foreign.tail)
    spec = _spec(found, encoding, words.digest(), split, teacher, precision, name or Path(path).stem, layout)
    report = (*found.lines(k=k, known_at=known_at, told=foreign.known_at is not None, tail=foreign.tail),)
    given = about or About()
    made_of = f"outputs {found.values.digest}"
    words_about = About(
        source=f"{without_folders(str(path))}, of {from_format}; {made_of}",
        teacher_licence=given.teacher_licence, transfer_licence=given.transfer_licence,
    )  # fmt: skip
    with StoreWriter(store, spec, about=words_about) as writer:
        require_same_maker(writer.folder, made_of, remedy="give the file that began it")
        kept = kept_about(writer.folder, words_about)
        require_room([writer])
        _write(writer, encoding, _kept_rows(source, found), found, watch)
        manifest = writer.seal(checked=True)
    for line in (*kept, *report, *writer.said):
        watch.say(line)
    if is_split_folder(writer.folder, split):
        write_root(writer.folder.above())
    return Translated(manifest, report)


def _source(path: Path, form: Format, foreign: Foreign) -> ForeignFile:
    if form == "axolotl":
        column = foreign.column or "logprobs"
        return Axolotl(path, column=column, aligned=foreign.aligned, tokenized=_chat(foreign))
    made: dict[Format, Callable[[Path], ForeignFile]] = {"distillkit": DistillKit, "vllm": Vllm, "sglang": Sglang}
    if form not in made:
        raise ConfigError(f"there is no format {form!r}", remedy=f"choose one of {', '.join(FORMATS)}")
    return made[form](path)


def _chat(foreign: Foreign) -> Callable[[Any], list[int]]:
    """Messages to ids, by the tokenizer's own template."""

    def tokenized(messages: Any) -> list[int]:
        tokenizer = load_tokenizer(foreign.tokenizer, foreign.revision)
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])
        except Exception as error:  # a template is a program, and raises what it likes
            raise ConfigError(
                f"the chat template of {foreign.tokenizer} does not take the messages: {error}",
                remedy="add input_ids to the rows: how axolotl tokenized them",
            ) from error

    return tokenized


def _vocabulary(foreign: Foreign) -> Any:
    if not foreign.tokenizer:
        raise ConfigError(
            "token ids have no meaning without their tokenizer",
            remedy="name the teacher's with --teacher_tokenizer=FOLDER (or a hub id)",
        )
    digest = tokenizer_digest(foreign.tokenizer, foreign.revision)
    return vocabulary_of(foreign.tokenizer, foreign.revision, digest)


def _known_at(source: ForeignFile, form: Format, foreign: Foreign) -> float:
    if foreign.known_at is not None:
        check_temperature(foreign.known_at)
        return foreign.known_at
    if source.known_at is not None:
        return source.known_at
    raise ConfigError(
        f"files of {form} do not give the temperature of their log-probabilities",
        remedy="give --known_at=1 if none was applied (vLLM's prompt_logprobs; SGLang's default)",
    )


def _spec(
    found: Survey, encoding: TopkEncoding, vocabulary: str, split: str, teacher: str, precision: str | None, name: str,
    layout: Literal["zarr", "arrow"],
) -> Spec:  # fmt: skip
    first = np.stack([_padded(inputs, found.longest) for inputs in found.first])
    return store_spec(
        encoding,
        teacher=TeacherSpec(name=teacher, precision=precision or "float32", members=(MemberSpec(model=teacher),)),
        name=name,
        split=split,
        keys=np.frombuffer(b"".join(found.keys), np.uint8).reshape(-1, 16),
        classes=found.classes,
        preprocessing=prepared_by("", {}, first),
        layout=layout,
        positions=found.longest - 1,
        vocabulary=vocabulary,
        ragged=layout == "arrow" and found.shortest < found.longest,
        embed=first,
    )


def _padded(inputs: NDArray[np.int32], length: int) -> NDArray[np.int32]:
    """(2, L) of a row's own."""
    return np.pad(inputs, ((0, 0), (0, length - inputs.shape[1])))


def _kept_rows(source: ForeignFile, found: Survey) -> Iterator[ForeignRow]:
    """The rows that are stored, in order. Raises `UserError` at their end where they are not those of the first reading."""
    again, kept = Values(), iter(found.kept)
    for row in source.rows():
        if next(kept, False) and isinstance(row, ForeignRow):
            again.add(row)
            yield row
    if again.digest != found.values.digest:
        raise UserError(
            f"{source.path} changed while it was read", remedy="delete the store, and import the file again"
        )


def _write(
    writer: StoreWriter, encoding: TopkEncoding, rows: Iterator[ForeignRow], found: Survey, watch: Watch
) -> None:
    """Write the shards that are missing; the rows of others are passed over."""
    spec, pending = writer.spec, {*writer.pending}
    for shard in tqdm(range(spec.shards), desc="import", unit="shard", disable=None):
        numbers = spec.shard_rows(shard)
        if shard not in pending:
            for _ in numbers:
                next(rows)
            continue
        if watch.should_stop():
            raise writer.stopped()
        with writer.shard(shard) as out:
            for start in range(numbers.start, numbers.stop, spec.cut.rows_per_chunk):
                stop = min(start + spec.cut.rows_per_chunk, numbers.stop)
                out.add(_chunk(spec, encoding, found.keys[start:stop], rows), stop - start)
            out.commit(Lost())
    deque(rows, maxlen=0)  # which compares them with the first reading


def _chunk(spec: Spec, encoding: TopkEncoding, keys: list[bytes], rows: Iterator[ForeignRow]) -> Arrays:
    """The columns of as many of the next rows."""
    classes, positions = spec.label_space.classes, spec.positions or 1
    inputs = np.zeros((len(keys), 2, positions + 1), np.int32)
    soft = {
        name: np.broadcast_to(
            encoding.blank(name, shape[1:], np.dtype(dtype)), (len(keys), *shape)
        ).copy()
        for name, dtype, shape, _ in encoding.columns(classes, 1, positions)
    }  # fmt: skip
    for number in range(len(keys)):
        row = next(rows)
        inputs[number, :, : len(row.tokens)] = row.inputs
        made = known_columns(encoding, classes, *row.largest(encoding.k), row.own[row.counts])
        for name, values in made.items():
            soft[name][number, np.flatnonzero(row.counts)] = values
    where = alignment(inputs)
    own: Arrays = {
        "content_key": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16),
        LABEL: np.full(len(keys), NO_LABEL, np.int64), "position_mask": where.mask, "document": where.document,
        "input": inputs,
    }  # fmt: skip
    return row_arrays(spec, own, soft)
