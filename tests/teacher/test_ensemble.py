"""Batches to logits: evaluation mode, precision, fingerprints, and teachers that cannot be trusted."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from softlabels.errors import ClassMismatch, ConfigError, LogitsError, NanLogits, TeacherError, WeightsError
from softlabels.models import build_model
from softlabels.teacher.config import TeacherConfig
from softlabels.teacher.ensemble import _no_tf32, load_ensemble
from softlabels.teacher.sentinels import check_sentinels
from softlabels.transfer import TransferRows
from tests.teacher.conftest import CLASSES, FEATURES, Teachers


def test_logits_are_the_members_outputs_in_order(rows: TransferRows, teacher: Teachers) -> None:
    config = teacher("Linear", "Linear")
    ensemble = load_ensemble(config)
    logits = ensemble.logits(rows.inputs[:9])
    assert logits.shape == (9, 2, CLASSES)
    for number, member in enumerate(config.members):
        weight = {name: t.double() for name, t in build_model(member.model).state_dict().items()}
        expected = torch.from_numpy(rows.inputs[:9]).double() @ weight["layer.weight"].T + weight["layer.bias"]
        torch.testing.assert_close(logits[:, number].double(), expected, atol=1e-6, rtol=1e-5)


def test_models_run_in_evaluation_and_inference_mode(rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("Linear"))
    seen = []
    ensemble.models[0].register_forward_hook(
        lambda module, _, output: seen.append(
            (module.training, torch.is_inference_mode_enabled(), output.requires_grad)
        )
    )
    ensemble.logits(rows.inputs[:4])
    assert seen == [(False, True, False)]


def test_lower_precision_is_really_used_and_recorded(rows: TransferRows, teacher: Teachers) -> None:
    exact, rounded = (load_ensemble(replace(teacher("Linear"), precision=p)) for p in ("float32", "bfloat16"))
    rounded.models = exact.models
    apart = (exact.logits(rows.inputs) - rounded.logits(rows.inputs)).abs().max()
    assert 1e-4 < apart < 0.1
    assert rounded.spec.precision == "bfloat16"


def test_the_weights_digest_follows_the_weights_not_the_file(teacher: Teachers) -> None:
    one, other = teacher("Linear", "Linear").members
    first, second = (
        load_ensemble(TeacherConfig(members=(m,), device="cpu")).spec.members[0].weights for m in (one, other)
    )
    again = load_ensemble(TeacherConfig(members=(one,), device="cpu")).spec.members[0].weights
    assert first == again != second


@pytest.mark.parametrize("fault", ["Dropping", "BatchStatistics", "BatchMask"])
@pytest.mark.parametrize(("count", "batch_size"), [(150, 256), (150, 16), (24, 256), (3, 2)])
def test_a_teacher_whose_rows_depend_on_their_batch_is_refused(
    fault: str, count: int, batch_size: int, rows: TransferRows, teacher: Teachers
) -> None:
    ensemble = load_ensemble(replace(teacher("Linear", fault), batch_size=batch_size))
    with pytest.raises(TeacherError, match=rf"member 1 \(tests\.teacher\.models\.{fault}\) .* differ by"):
        check_sentinels(ensemble, rows.inputs[:count])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_sound_teacher_passes_the_sentinels(precision: str, rows: TransferRows, teacher: Teachers) -> None:
    assert check_sentinels(load_ensemble(teacher("Linear", "Linear", precision=precision)), rows.inputs) == {
        "": CLASSES
    }


def test_sentinels_keep_to_the_batch_size(rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(replace(teacher("Linear"), batch_size=5))
    seen: list[int] = []
    ensemble.models[0].register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    check_sentinels(ensemble, rows.inputs)
    assert max(seen) == 5
    assert sum(seen) == 2 * 64 + 64 // 8  # cut in two ways, and one in eight alone


def test_sentinels_that_no_store_can_hold_are_named_before_the_first_shard(
    rows: TransferRows, teacher: Teachers
) -> None:
    largest = rows.inputs[:64, 0].argmax()
    bound = float(np.sort(rows.inputs[:64, 0])[-1]) - 1e-6
    with pytest.raises(NanLogits, match=rf"logits are NaN \(row {largest}, member 0\)"):
        check_sentinels(load_ensemble(teacher("NanAt", bound=bound)), rows.inputs)


def test_inputs_that_the_models_cannot_take(rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("Linear", features=7))
    with pytest.raises(ConfigError, match=r"cannot take inputs of float32 and shape \[16, 6\]: mat1"):
        check_sentinels(ensemble, rows.inputs)


def test_tf32_stays_off_while_a_thread_is_inside() -> None:
    """Seen to fail: the first one out put the settings back, and the last one those that it had found."""
    kinds: Any = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    before = [kind.fp32_precision for kind in kinds]
    with ExitStack() as outer:
        with _no_tf32:
            outer.enter_context(_no_tf32)
        assert [kind.fp32_precision for kind in kinds] == ["ieee", "ieee"] != before
    assert [kind.fp32_precision for kind in kinds] == before


def test_float32_is_not_rounded_to_tf32(rows: TransferRows, teacher: Teachers) -> None:
    cudnn = torch.backends.cudnn
    before = (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision)
    ensemble = load_ensemble(teacher("Linear"))
    seen = []
    ensemble.models[0].register_forward_hook(
        lambda *_: seen.append((cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision))
    )
    ensemble.logits(rows.inputs[:2])
    assert seen == [("ieee", "ieee")]
    assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == before


def test_members_with_different_classes_are_refused(rows: TransferRows, teacher: Teachers) -> None:
    members = (*teacher("Linear").members, *teacher("Linear", classes=7).members)
    with pytest.raises(ClassMismatch, match="5 and 7 classes"):
        load_ensemble(TeacherConfig(members=members, device="cpu")).logits(rows.inputs[:2])


def test_outputs_that_are_no_logits_are_refused(rows: TransferRows, teacher: Teachers) -> None:
    with pytest.raises(LogitsError, match="gives tuple for a batch of 2 rows"):
        load_ensemble(teacher("Pair")).logits(rows.inputs[:2])
    with pytest.raises(LogitsError, match=r"gives torch.int64 \(2, 5\) for a batch of 2 rows"):
        load_ensemble(teacher("Votes")).logits(rows.inputs[:2])


def test_a_member_without_weights_is_refused(teacher: Teachers) -> None:
    config = teacher("Linear")
    bare = replace(config, members=(replace(config.members[0], weights=None),))
    missing = replace(config, members=(replace(config.members[0], weights="no/file"),))
    with pytest.raises(
        WeightsError, match=r"there is no file no/file; train it with `softlabels train-teacher`, or name"
    ):
        load_ensemble(missing)
    with pytest.raises(WeightsError, match=r"teacher.members\[0\] .* has no weights"):
        load_ensemble(bare)


def test_inputs_are_not_changed(rows: TransferRows, teacher: Teachers) -> None:
    before = np.array(rows.inputs)
    load_ensemble(teacher("Linear")).logits(rows.inputs[:FEATURES])
    assert (rows.inputs == before).all()


def test_a_member_that_changes_its_inputs_changes_no_other_member(rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("Linear", "Linear"))
    expected = ensemble.logits(rows.inputs[:9])

    def triple(module: torch.nn.Module, given: tuple[torch.Tensor], output: torch.Tensor) -> None:
        given[0].mul_(3)

    for model in ensemble.models:
        model.register_forward_hook(triple)
    assert torch.equal(ensemble.logits(rows.inputs[:9]), expected)
