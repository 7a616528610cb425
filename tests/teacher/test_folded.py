"""Out-of-fold answers: each row's are those of the members of its fold, in every shape that members give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from blake3 import blake3

from softlabels import Ensemble, LabelsConfig, label, open_store
from softlabels.errors import ClassMismatch, ConfigError, OtherWeights, TeacherError, WeightsError
from softlabels.models.weights import weights_digest
from softlabels.stream.folds import fold_of
from softlabels.system.places import Place
from softlabels.teacher.config import MemberConfig, TeacherConfig
from softlabels.teacher.ensemble import load_ensemble
from softlabels.teacher.recheck import compare_with_teacher
from softlabels.transfer import TransferRows
from tests.teacher.conftest import CLASSES
from tests.teacher.models import BatchStatistics, Linear, TinyLM
from tests.teacher.sequences import token_rows

FOLDS = 3


def folded(*kinds: type[torch.nn.Module]) -> Ensemble:
    """Members of these kinds, and of three folds, all with fresh weights."""
    models, *of_fold = [[kind() for kind in kinds] for _ in range(1 + FOLDS)]
    return Ensemble.of(models, of_fold=of_fold, device="cpu", batch_size=16)


def test_each_row_is_labelled_by_the_members_of_its_fold(rows: TransferRows, tmp_path: Place) -> None:
    teacher, test = folded(Linear, Linear), replace(rows, split="test")
    manifests = label([rows, test], teacher, LabelsConfig(rows_per_shard=48, rows_per_chunk=16), tmp_path)
    fold = fold_of(rows.keys, FOLDS)
    store = open_store(tmp_path, split="train")
    assert (store.spec.folds, manifests["train"].format) == (FOLDS, 3)
    assert (store.column("fold") == fold).all()
    stored = np.asarray(store.column("logits"), np.float64)
    inputs = torch.from_numpy(np.array(rows.inputs))
    for row in range(len(fold)):
        for number, model in enumerate(teacher.of_fold[fold[row]].models):
            z = model.double()(inputs[row : row + 1].double())[0].numpy()
            assert np.abs(stored[row, number] - (z - z.max())).max() < 5e-3
            model.float()
    whole = open_store(tmp_path, split="test")
    assert "fold" not in whole.columns
    z = teacher.models[0](inputs).detach().numpy()
    assert np.abs(whole.column("logits")[:, 0] - (z - z.max(1, keepdims=True))).max() < 5e-3


def test_the_digest_of_weights(rows: TransferRows, tmp_path: Place) -> None:
    teacher = folded(Linear)
    digests = [weights_digest(each.models[0]) for each in (teacher, *teacher.of_fold)]
    expected = blake3("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()
    assert [member.weights for member in teacher.spec.members] == [expected]
    label(rows, teacher, LabelsConfig(), tmp_path)
    store = open_store(tmp_path, split="train")
    assert compare_with_teacher(store, rows, teacher, sample=999)[""].sound
    same = Ensemble.of(teacher.models, of_fold=[each.models for each in teacher.of_fold[::-1]], device="cpu")
    with pytest.raises(OtherWeights):
        compare_with_teacher(store, rows, same)
    other = Ensemble(
        teacher.models, teacher.spec, teacher.device, of_fold=[each.models for each in teacher.of_fold[::-1]]
    )
    assert not compare_with_teacher(store, rows, other, sample=999)[""].sound  # it asks those of the row's fold


def test_rows_of_tokens(rng: np.random.Generator) -> None:
    rows = token_rows(rng)
    teacher = folded(TinyLM, TinyLM)
    teacher.expect(rows.sequence)
    inputs, fold = np.array(rows.inputs[:9]), np.array([2, 0, 0, 2, 1, 2, 0, 1, 1], np.uint16)
    outputs = teacher.answers(inputs, fold)[""]
    found = torch.cat([block for _, block in outputs.blocks()]).reshape(9, -1, 2, outputs.classes)
    for row in range(9):
        alone = teacher.of_fold[fold[row]].answers(inputs[row : row + 1])[""].logits()
        torch.testing.assert_close(found[row], alone)
    some = torch.tensor([40, 3, 3, 17])
    torch.testing.assert_close(outputs.logits(some), outputs.logits()[some])


def test_the_members_of_each_fold_are_asked_before_the_pass(rows: TransferRows, tmp_path: Place) -> None:
    models = [[Linear()], [BatchStatistics()], [Linear()]]
    teacher = Ensemble.of([Linear()], of_fold=models, device="cpu", batch_size=16)
    with pytest.raises(TeacherError, match=r"member 0 \(tests.teacher.models.Linear\), fold 1 gives"):
        label(rows, teacher, LabelsConfig(), tmp_path)
    wide = Ensemble.of([Linear()], of_fold=[[Linear()], [Linear(classes=CLASSES + 1)]], device="cpu", batch_size=16)
    with pytest.raises(ClassMismatch, match="the members of the folds have 5 and 6 classes; train them"):
        label(rows, wide, LabelsConfig(), tmp_path)


def test_files_of_folds(tmp_path: Place) -> None:
    member = MemberConfig("softlabels.models.MLP", {"inputs": 6, "hidden": [], "classes": 5}, "a/net.v2.safetensors")
    assert member.of_fold(3, 5).weights == "a/net.v2.fold3of5.safetensors"
    with pytest.raises(ConfigError, match=r"teacher.folds=5, and the member softlabels.models.MLP names no weights"):
        replace(member, weights=None).of_fold(0, 5)
    with pytest.raises(ConfigError, match=r"teacher.folds is 1; give a number from 2 to 65536"):
        TeacherConfig((member,), folds=1)
    with pytest.raises(WeightsError, match=r"there is no file a/net.v2.safetensors"):
        load_ensemble(TeacherConfig((member,), folds=5))
