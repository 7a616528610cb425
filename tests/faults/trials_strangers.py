"""Promise 7 again, under every command: the fuzzer of `tests.faults.fuzz`."""

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
)
