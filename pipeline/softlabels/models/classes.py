"""Whether a model's own names of its classes are those of the data, in the same order, whether its outputs are of the kind that
is stored, and of a language model whether its vocabulary is that of the rows. Only some models say.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from softlabels.errors import ClassMismatch, OtherLabels, OtherTokenizer, some
from softlabels.labels.targets import Target
from softlabels.transfer.sequences import SequenceInfo
from softlabels.transfer.vocabulary import Vocabulary

_HEADS: dict[Target, str] = {
    "softmax": "one softmax over two classes or more", "sigmoid": "each class by itself (sigmoid)", "values": "real numbers",
}  # fmt: skip


def require_class_names(model: nn.Module, names: Sequence[str] | None, *, who: str, whose: str) -> None:
    """Raise ClassMismatch where the model (`who`) and the data (`whose`) name other classes, OtherLabels where they name the
    same in another order. The model's are those that its checkpoint gives, in the order of the logits, in its attribute
    `class_names`.

    Capitals, spaces and punctuation do not count. Nothing is compared where one of them names none.
    """
    own = getattr(model, "class_names", None)
    if not isinstance(own, tuple | list) or names is None or [*map(_plain, own)] == [*map(_plain, names)]:
        return
    same = sorted(map(_plain, own)) == sorted(map(_plain, names))
    raise (OtherLabels if same else ClassMismatch)(
        f"{who} has {'the classes in another order' if same else 'other classes'}: {some(own, 10)}; {whose}: {some(names, 10)}",
        remedy="order the names and the labels of the data as the model does (transfer_set.classes, in its label column too), "
        "or correct id2label in the model's config.json",
    )


def require_head(model: nn.Module, target: Target, *, who: str) -> None:
    """Raise ClassMismatch where the model (`who`) says in an attribute `target` that its outputs are of another kind than this
    one; outputs of every kind can be taken as real numbers (values).
    """
    own = getattr(model, "target", None)
    if own not in _HEADS or target in (own, "values"):
        return
    remedy = f"say labels.kind: {own}, or name a checkpoint of such a head"
    if own != "values":
        other = "single" if target == "softmax" else "multi"
        means = "one class excludes the others" if target == "softmax" else "each class is by itself"
        remedy += f"; if {means}, give config: {{problem_type: {other}_label_classification}}"
    raise ClassMismatch(
        f"{who}: {getattr(model, 'head', own)}, and labels are stored of {_HEADS[target]}",
        remedy=f"{remedy}; or give classes for a new one, to be trained",
    )


def require_vocabulary(model: nn.Module, sequence: SequenceInfo | None, *, who: str) -> None:
    """Raise OtherTokenizer where the model (`who`) says by which vocabulary its tokens are numbered, in an attribute
    `vocabulary`, and it is not the one of the rows (None: they are no tokens). Tokens at the end that were added to one of the
    two do not count, where the model's attribute `words` shows them.
    """
    own, words = getattr(model, "vocabulary", None), words_of(model)
    if sequence is None or not isinstance(own, str) or own == sequence.vocabulary:
        return
    if words is None or not _agree(words, sequence):
        raise OtherTokenizer(
            f"{who} has a tokenizer of another vocabulary ({own[:12]}...) than the rows ({sequence.vocabulary[:12]}...): its "
            "token ids mean other tokens",
            remedy="name the model's own tokenizer in transfer_set.sequences.tokenizer",
        )


def words_of(model: nn.Module) -> Vocabulary | None:
    """The vocabulary of the tokenizer that lies with a model's checkpoint; None where it says of none."""
    words = getattr(model, "words", None)
    return words if isinstance(words, Vocabulary) else None


def _agree(words: Vocabulary, sequence: SequenceInfo) -> bool:
    """Whether the ids of rows mean the same tokens, of as many as both have."""
    shared = min(words.size, sequence.classes)
    beyond = sequence.words is None or sequence.classes <= shared or sequence.words.only_added(shared)
    return words.only_added(shared) and beyond and words.digest(shared) == sequence.below(shared).vocabulary


def _plain(name: object) -> str:
    return "".join(letter for letter in str(name).casefold() if letter.isalnum()) or str(name)
