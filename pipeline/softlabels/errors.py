"""Every error a user can meet.

Each error names the rule that was broken with the value that broke it (`what`) and what to do next (`remedy`); commands
print the two as one line and exit with the class's `exit_code`::

    SoftLabelsError
    ├── UserError                 exit 2: something the user gave does not fit
    │   ├── ConfigError             unknown key, wrong type, impossible value in a recipe or on the command line
    │   ├── TransferSetError        the transfer set cannot be read as the recipe says
    │   ├── LabelError              a hard label outside the label space
    │   ├── LogitsError             outputs that are not logits, or logits that cannot be stored
    │   │   ├── NanLogits             NaN
    │   │   ├── InfiniteLogits        +inf, or a largest logit beyond float32
    │   │   ├── NoPossibleClass       -inf in every class
    │   │   ├── LogitsOverflow        a range that float16 cannot hold
    │   │   └── ContradictingOutputs  rows with the same content key and different outputs
    │   ├── ClassIdOverflow         a class id of sparse labels outside the classes
    │   ├── TeacherError            the teacher's outputs depend on how its batches are cut
    │   ├── MeanUnavailable         the store was reduced and cannot give this mean of its members
    │   ├── SeveralTargets          a store of several targets, and none is named, or one that it lacks
    │   ├── WeightsError            a weights file that does not fit, or is not a safetensors file
    │   ├── ClassMismatch           store, student and transfer set disagree on the label space
    │   │   ├── OtherClassOrder       outputs that number the classes differently from the hard labels beside them
    │   │   ├── OtherLabels           classes numbered differently, or other hard labels, than in the store
    │   │   └── OtherTokenizer        token ids that mean other tokens
    │   ├── AlignmentError          the positions that a store counts are not those of the rows' tokens
    │   ├── UnlabelledRows          rows of the transfer set that the store holds no labels for
    │   ├── SpecMismatch            a store or run folder that was begun with another specification
    │   │   ├── OtherRows             rows of the transfer set that are gone, new or changed
    │   │   ├── OtherOrder            the same rows in another order
    │   │   ├── OtherPreprocessing    inputs that are prepared differently
    │   │   ├── OtherWeights          a teacher with other weights
    │   │   ├── OtherMemberOrder      the same members in another order
    │   │   └── OtherLogits           the same specification, but the teacher now gives other logits
    │   ├── StorePathError          the path holds no store, or something else
    │   │   └── LaterFormat           a store of a later format than this version reads
    │   ├── UnsealedStore           the store is unfinished
    │   ├── RepeatedRow             the same row was written twice
    │   ├── RunExists               the output folder already holds another run
    │   ├── DamagedRun              a file of a run folder that cannot be read as what it should hold
    │   ├── UntrustedCode           a class path from somebody else's run; importing it would run its code
    │   ├── MissingExtra            an optional package that is not installed
    │   └── ExportError             a student that cannot be exported, or whose export gives other logits
    ├── DamagedStore              exit 3: what the store holds is not what was written
    │   ├── StrangePath             a link, pipe or device where a file or folder of a store, run or cache belongs
    │   ├── DamagedManifest         plan, commit record or manifest
    │   ├── DamagedBasis            the prior and basis of the stored tails
    │   ├── MissingShard            a shard's file is gone
    │   ├── DamagedShard            a shard's bytes differ from its commit record
    │   └── NotSigned               the named key has not signed it
    ├── StorageError              exit 74: the system refused to read or write
    │   ├── Replaced                a remote file was replaced or removed while it was read
    │   └── OutOfResources          the system gave no memory, threads or open files
    ├── Unexpected                exit 1: a mistake of this software
    └── Resumable                 exit 75: stopped, nothing lost, the same command resumes
        ├── DiskFull                no space for what is left to write
        ├── Stalled                 a process or thread has not finished within the timeout
        ├── NoAnswer                a server gave no usable answer in any try
        ├── RankLost                one of the processes that train together has ended, or has not joined
        └── Interrupted             SIGTERM or SIGINT
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

LONGEST = 200  # characters of one name
_BREAKS = re.compile(r"[^\S ]+")  # blanks other than the space: line breaks, tabs, wide spaces
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the system's reasons for `DiskFull`
NO_HANDLES = (errno.EMFILE, errno.ENFILE)  # and for `OutOfResources`
NO_MEMORY = (errno.ENOMEM, errno.EAGAIN)


def refused(
    what: str,
    error: OSError,
    *,
    full: str = "make room and run the same command again; what was finished is kept",
    else_: str = "check the disk and the permissions, then run the same command again",
) -> SoftLabelsError:
    """Our error for one of the system's: `what` it refused, and the remedy where the disk is full, or for anything `else_`."""
    if error.errno in NO_ROOM:
        return DiskFull(what, remedy=full)
    if error.errno in NO_HANDLES:
        return OutOfResources(
            what, remedy="raise the limit of open files (ulimit -n 1024) and run the same command again"
        )
    if error.errno in NO_MEMORY:
        return OutOfResources(what, remedy="give the process more memory (ulimit -v, the container's limit)")
    return StorageError(what, remedy=else_)


def some(items: Iterable[object], shown: int = 5) -> str:
    """The first items of a list in a message, and how many more there are."""
    found = [str(item) for item in items]
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return ", ".join(found[:shown]) + more


def require_keys(given: Iterable[object], known: Iterable[str], where: str, more: str = "") -> None:
    """Raise `ConfigError` for an unknown key of the mapping at `where`; `more` is added to the remedy."""
    for key in given:
        if key not in (*known,):
            names = ", ".join(known)
            raise ConfigError(f"{where}: unknown key {key!r}", remedy=f"known keys: {names}{'; ' * bool(more)}{more}")


def visible(text: str) -> str:
    r"""The text with an escape, such as `\x1b`, in the place of each character that is not seen or that a terminal obeys: of
    control sequences, reversed writing, half surrogates. The byte 0xff of a name that is not UTF-8 is `\xff`. Line breaks and
    tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else _escape(each) for each in text)


def one_line(text: object, longest: int | None = LONGEST) -> str:
    """The same on one line, cut to its first `longest` characters: a line break, and the blanks around it, is a space."""
    words = str(text) if longest is None else str(text)[: 4 * longest]
    line = visible(" ".join(filter(None, (part.strip() for part in _BREAKS.split(words)))))
    return line if longest is None or len(line) <= longest else line[: longest - 3] + "..."


def _escape(character: str) -> str:
    if character.isspace() and ord(character) > 0xFF:
        return " "
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte, as Python writes names that are not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


class SoftLabelsError(Exception):
    """Base of all errors that this software raises on purpose. `str(error)` is one line: what, then remedy. What it repeats of
    a file, a name or another error can be printed as it is: it has passed `softlabels.errors`.

    They cross a border between processes with class, exit code and text: by pickle, and by torch's DataLoader, which puts the
    worker's traceback into the text.

    Example:
        >>> str(ConfigError("alpha is 2", remedy="give 0 to 1")), ConfigError.exit_code
        ('alpha is 2; give 0 to 1', 2)
    """

    exit_code = 2
    what: str
    remedy: str
    differences: tuple[Any, ...] = ()  # of a store that was begun otherwise: `softlabels.store.differences.Difference`
    spec: Any = None  # this run's specification, from which they are
    is_said: bool = False  # whether another of several processes says it

    if TYPE_CHECKING:  # whoever raises one gives a remedy

        def __init__(self, what: str, *, remedy: str) -> None: ...

    else:  # whoever copies one from another process, as pickle and torch's DataLoader do, has its text alone

        def __init__(self, what, *, remedy=None):
            self.what = visible(str(what)) if remedy is None else one_line(what, None)  # a traceback keeps its lines
            self.remedy = one_line(remedy or "", None)
            super().__init__(self.what if remedy is None else f"{self.what}; {self.remedy}")


class UserError(SoftLabelsError):
    """Something the user gave does not fit."""


class ConfigError(UserError):
    """An unknown key, a wrong type or an impossible value in a recipe or on the command line."""


class TransferSetError(UserError):
    """The transfer set cannot be read as the recipe says."""


class LabelError(UserError):
    """A hard label outside the label space."""


class LogitsError(UserError):
    """Outputs of a teacher that are not logits, or logits that cannot be stored; a loss that is not finite."""


class NanLogits(LogitsError):
    """Logits that are NaN."""


class InfiniteLogits(LogitsError):
    """A logit that is +inf, or a largest logit beyond float32."""


class NoPossibleClass(LogitsError):
    """Logits that are -inf in every class; the geometric mean of members without a possible class in common."""


class LogitsOverflow(LogitsError):
    """Logits too far apart for float16."""


class ContradictingOutputs(LogitsError):
    """Rows with the same content key, by which labels are found, and different outputs."""


class ClassIdOverflow(UserError):
    """A class id of sparse labels outside the classes, for example after a cast to a type that is too narrow."""


class TeacherError(UserError):
    """The outputs for a row depend on the other rows of its batch; or a server contradicts itself."""


class MeanUnavailable(UserError):
    """The store keeps a reduced ensemble and cannot give this mean of its members."""


class SeveralTargets(UserError):
    """A store of several targets, and the call names none of them, or one that the store lacks."""


class WeightsError(UserError):
    """A weights file that does not fit the model, or that is not a safetensors file."""


class ClassMismatch(UserError):
    """Store, student and transfer set disagree on the label space."""


class OtherClassOrder(ClassMismatch):
    """The outputs number the classes differently from the hard labels beside them, or belong to other rows."""


class OtherLabels(ClassMismatch):
    """The classes are numbered differently from the store's, or the rows have other hard labels than the store."""


class OtherTokenizer(ClassMismatch):
    """The rows' token ids mean other tokens than those of the store or the model."""


class AlignmentError(UserError):
    """The positions that a store counts, or their documents, are not those of the rows' tokens."""


class UnlabelledRows(UserError):
    """Rows of the transfer set that the store holds no labels for."""


class SpecMismatch(UserError):
    """A store or run folder that was begun with another specification."""


class OtherRows(SpecMismatch):
    """Rows of the transfer set that was labelled are gone, new or changed."""


class OtherOrder(SpecMismatch):
    """The rows are the labelled ones, in another order."""


class OtherPreprocessing(SpecMismatch):
    """The inputs are prepared differently from those that the teacher saw."""


class OtherWeights(SpecMismatch):
    """The teacher has other weights than the one that made the store."""


class OtherMemberOrder(SpecMismatch):
    """The members are those that made the store, in another order."""


class OtherLogits(SpecMismatch):
    """The teacher has the same weights, but does not give the logits that the store holds."""


class StorePathError(UserError):
    """The path holds no store, or something else."""


class LaterFormat(StorePathError):
    """A store of a later format than this version of the software reads."""


class UnsealedStore(UserError):
    """The store is unfinished: its manifest is not written yet."""


class RepeatedRow(UserError):
    """The same row was written twice."""


class RunExists(UserError):
    """The output folder already holds another run."""


class DamagedRun(UserError):
    """A file of a run folder that cannot be read as what it should hold."""


class UntrustedCode(UserError):
    """A class path from a run that was not made here and is not trusted: importing it would run somebody else's code."""


class MissingExtra(UserError):
    """A required package is not installed; the message names the extra of softlabels that installs it."""


class ExportError(UserError):
    """A student that cannot be exported, or whose export gives other logits than the student."""


class DamagedStore(SoftLabelsError):
    """What the store holds is not what was written."""

    exit_code = 3


class StrangePath(DamagedStore):
    """A link, pipe or device below the root of a store, run or cache, where a file or folder of its own belongs."""


class DamagedManifest(DamagedStore):
    """Plan, commit record or manifest do not agree with themselves or with each other."""


class DamagedBasis(DamagedStore):
    """The prior and basis of the stored tails are gone, or not those that the plan names."""


class MissingShard(DamagedStore):
    """A file of a committed shard is gone."""


class DamagedShard(DamagedStore):
    """A shard's bytes differ from its commit record."""


class NotSigned(DamagedStore):
    """The store has no valid signature of the named key."""


class StorageError(SoftLabelsError):
    """The system refused to read or write."""

    exit_code = 74


class Replaced(StorageError):
    """A remote file was replaced or removed while it was read."""

    @classmethod
    def of(cls, where: object) -> Replaced:
        """The error for a file."""
        return cls(
            f"{where} was replaced, or deleted, while the store was read",
            remedy="run the same command again, it reads what is there now; a sealed store never changes: ask who wrote",
        )


class OutOfResources(StorageError):
    """The system gave no memory, threads or open files."""


class Unexpected(SoftLabelsError):
    """An unexpected error: a mistake of this software."""

    exit_code = 1


class Resumable(SoftLabelsError):
    """The command stopped before its end; nothing is lost, and the same command resumes."""

    exit_code = 75


class DiskFull(Resumable):
    """There is no space for what is left to write."""


class Stalled(Resumable):
    """A process or a thread has not finished within the timeout."""


class NoAnswer(Resumable):
    """The server of a teacher gave no usable answer in any try."""


class RankLost(Resumable):
    """One of the processes that train together has ended, or has not joined."""


class Interrupted(Resumable):
    """SIGTERM or SIGINT arrived."""
