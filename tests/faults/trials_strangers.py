"""Promise 7 again, under every command: the fuzzer of `tests.faults.fuzz`; and of its stores far away, promise 18."""

from __future__ import annotations

from functools import partial

from tests.faults.apart import apart
from tests.faults.campaign import Outcome, Trial


def hostile_stores(count: int, seed: int) -> Outcome:
    from tests.faults.fuzz import hostile_stores  # imports torch

    return hostile_stores(count, seed)


def printed_as_it_is(seed: int) -> Outcome:
    from tests.faults.fuzz import printed_as_it_is

    return printed_as_it_is(seed)


def hostile_stores_far(count: int, seed: int) -> Outcome:
    from tests.faults.fuzz import hostile_stores_far

    return hostile_stores_far(count, seed)


def printed_far(seed: int) -> Outcome:
    from tests.faults.fuzz import printed_far

    return printed_far(seed)


TRIALS = (
    Trial(
        promise=7,
        what="a fuzzer's store (values, records, text, framing, names) under every command, in 512 MB and 60 s",
        count=3000,
        quick=2,
        run=partial(apart, hostile_stores),
        control=partial(apart, printed_as_it_is),
        control_what="names are printed as they stand in the store",
        slow=True,
    ),
    Trial(
        promise=18,
        what="a fuzzer's store behind a web server, or one of S3, under every command that reads, in 512 MB and 60 s",
        count=500,
        quick=1,
        run=partial(apart, hostile_stores_far),
        control=partial(apart, printed_far),
        control_what="names are printed as they stand in the store",
        slow=True,
    ),
)
