"""Signatures: what they prove, and that nothing of a store is used before what is pinned was checked."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from softlabels import errors, open_store, pull, push, select, sign, write_store
from softlabels.errors import (
    ConfigError,
    DamagedManifest,
    DamagedStore,
    NotSigned,
    SpecMismatch,
    StorageError,
    UserError,
)
from softlabels.jobs.sources import Source
from softlabels.jobs.splits import open_splits
from softlabels.jobs.watch import Watch
from softlabels.store.pinned import Pinned
from softlabels.store.repair import repair
from softlabels.store.signatures import Signature, require_signed, signatures_file
from softlabels.store.verify import verify
from softlabels.system.keys import PASSPHRASE, private_key, public_key
from softlabels.system.local import LocalFolder
from softlabels.system.places import Place
from softlabels_stages.__main__ import main
from tests.system.memory import MemoryDepot

PEM, OPENSSH = serialization.Encoding.PEM, serialization.Encoding.OpenSSH
PKCS8, SPKI = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
PLAIN = serialization.NoEncryption()


def keys(folder: Path, name: str, made: object | None = None, *, kind: str = "pem") -> tuple[str, str]:
    """The files of a new private key and of its public one."""
    key = made or ed25519.Ed25519PrivateKey.generate()
    own, public = folder / f"{name}.key", folder / f"{name}.pub"
    form = PKCS8 if kind == "pem" else serialization.PrivateFormat.OpenSSH
    own.write_bytes(key.private_bytes(PEM, form, PLAIN))  # type: ignore[attr-defined]
    shape = (PEM, SPKI) if kind == "pem" else (OPENSSH, serialization.PublicFormat.OpenSSH)
    public.write_bytes(key.public_key().public_bytes(*shape))  # type: ignore[attr-defined]
    return str(own), str(public)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return keys(tmp_path_factory.mktemp("keys"), "team")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, team: tuple[str, str]) -> Path:
    """A folder of two splits, each signed, of which train has two shards; `old/store`: another pass over the same rows."""
    root = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for folder in ("store", "old/store"):
        for split, rows in (("train", 40), ("test", 20)):
            inputs = np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2) + len(split)
            logits, labels = rng.normal(size=(rows, 2, 3)), np.arange(rows) % 3
            write_store(root / folder / split, logits, inputs=inputs, labels=labels, rows_per_shard=32)
    for folder in ("store", "old/store"):
        sign(root / folder, team[0])
    return root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of the signed folder."""
    return shutil.copytree(made / "store", tmp_path / "store")


def use(store: Place, public: str) -> None:
    """Check it, and read every byte, as whoever trusts nothing would."""
    found = open_store(store, signed_by=public)
    for name in found.columns:
        found.column(name)
    problems = verify(store)
    assert not problems, problems


def test_a_valid_signature(store: Path, team: tuple[str, str]) -> None:
    use(store / "train", team[1])
    open_store(store, split="test", signed_by=team[1], digest=open_store(store / "test").digest)
    assert set(open_splits(Source((store,), pinned=Pinned(team[1])), None)) == {"train", "test"}
    line = Path(team[1]).read_text()
    key = serialization.load_pem_public_key(line.encode())
    use(
        store / "train", key.public_bytes(OPENSSH, serialization.PublicFormat.OpenSSH).decode()
    )  # as recipes may hold it


@pytest.mark.parametrize("kind", ["pem", "ssh"])
def test_kinds_of_keys(kind: str, store: Path, team: tuple[str, str], tmp_path: Path) -> None:
    own, public = keys(tmp_path, "ours", ec.generate_private_key(ec.SECP256R1()), kind=kind)
    sign(store, own)
    use(store / "train", public)
    use(store / "train", team[1])  # it stays
    before = (store / "train" / "signatures.json").read_bytes()
    sign(store, own)
    assert (store / "train" / "signatures.json").read_bytes() == before  # once signed, it is signed


def test_anybody_can_check_it_without_this_software(store: Path, team: tuple[str, str]) -> None:
    manifest = json.loads((store / "train" / "manifest.json").read_bytes())
    [found] = json.loads((store / "train" / "signatures.json").read_bytes())["signatures"]
    said = {"context": "softlabels: signature of a store", "version": 1}
    said |= {name: manifest[name] for name in ("digest", "seal")}
    text = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    key = serialization.load_pem_public_key(Path(team[1]).read_bytes())
    assert isinstance(key, ed25519.Ed25519PublicKey)
    key.verify(bytes.fromhex(found["signature"]), text)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_the_fingerprint_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    _, public = keys(tmp_path, "one", kind="ssh")
    said = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout
    assert said.split()[1] == public_key(public).fingerprint


def test_every_bit_counts(store: Path, team: tuple[str, str], rng: np.random.Generator) -> None:
    """Of the file of signatures every seventh bit; of all others some."""
    folder, tried, key = LocalFolder(store / "train"), 0, public_key(team[1])
    manifest = open_store(folder).manifest
    for path in sorted(
        path for path in (store / "train").rglob("*") if path.is_file() and path.name not in ("README.md", "lock")
    ):
        data = path.read_bytes()
        bits = (
            range(0, 8 * len(data), 7) if path.name == "signatures.json" else rng.integers(0, 8 * len(data), 1).tolist()
        )
        for bit in bits:
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            refused = False
            try:
                if path.name == "signatures.json":
                    require_signed(folder, manifest, key)
                else:
                    use(folder, team[1])
            except (DamagedStore, UserError, AssertionError):
                refused = True
            assert refused, (path.name, bit)
            tried += 1
        path.write_bytes(data)
    assert tried > 250
    use(folder, team[1])


def test_others_are_refused(store: Path, made: Path, team: tuple[str, str], tmp_path: Path) -> None:
    _, other = keys(tmp_path, "other")
    with pytest.raises(NotSigned, match=r"is not signed by SHA256:.*, but, so it says, by SHA256:.*; check the key"):
        open_store(store / "train", signed_by=other)
    entry = store / "train" / "signatures.json"
    entry.write_text(entry.read_text().replace(public_key(team[1]).fingerprint, public_key(other).fingerprint))
    with pytest.raises(NotSigned, match="is not one of this store"):  # another's signature under one's own name
        open_store(store / "train", signed_by=other)
    entry.unlink()
    with pytest.raises(NotSigned, match="train is not signed; use nothing of it"):
        open_store(store / "train", signed_by=team[1])
    shutil.copy(store / "test" / "signatures.json", entry)
    with pytest.raises(NotSigned, match="is not one of this store"):
        open_store(store / "train", signed_by=team[1])


def test_a_swapped_shard_and_forged_digests(store: Path, made: Path, team: tuple[str, str]) -> None:
    """Another pass over the same rows, signed by the same key: its parts do not fit into this one."""
    ours, old = store / "train", made / "old" / "store" / "train"
    shard = ours / "logits" / "c.1.0.0"
    standing = shard.read_bytes()
    shutil.copy(old / "logits" / "c.1.0.0", shard)
    with pytest.raises(errors.DamagedShard, match="shard 1"):
        open_store(ours, signed_by=team[1]).column("logits")
    shutil.copy(old / "commits" / "00001.json", ours / "commits" / "00001.json")
    with pytest.raises(DamagedManifest, match="shard 1"):
        open_store(ours, signed_by=team[1]).column("logits")
    shard.write_bytes(standing)
    forged = write_store(
        store / "forged" / "train", np.zeros((40, 2, 3)), inputs=np.zeros((40, 2), np.float32) + np.arange(40)[:, None]
    )
    shutil.copy(ours / "signatures.json", store / "forged" / "train")
    assert verify(forged.folder) == []  # a sound store, of labels that nobody signed
    with pytest.raises(NotSigned):
        open_store(store / "forged" / "train", signed_by=team[1])


def test_a_manifest_of_before(store: Path, made: Path, team: tuple[str, str]) -> None:
    """Its manifest alone does not fit; all of it is a store that was signed, and only a digest says that it is not this one."""
    ours, old, digest = store / "train", made / "old" / "store" / "train", open_store(store / "train").digest
    shutil.copy(old / "manifest.json", ours)
    with pytest.raises(NotSigned):
        open_store(ours, signed_by=team[1])
    shutil.copy(old / "signatures.json", ours)
    with pytest.raises(DamagedManifest):
        open_store(ours, signed_by=team[1]).column("logits")
    shutil.rmtree(ours)
    shutil.copytree(old, ours)
    open_store(ours, signed_by=team[1])  # this is what signatures do not say
    with pytest.raises(SpecMismatch, match=f"not {digest}; ask the store's maker"):
        open_store(ours, signed_by=team[1], digest=digest)
    assert main(["verify", str(ours), f"--signed_by={team[1]}", f"--digest={digest}"]) == 3


def test_what_is_said_of_the_store_is_signed_too(store: Path, team: tuple[str, str]) -> None:
    """The licence stands outside the digest, and inside the seal."""
    from msgspec.structs import replace

    from softlabels.store.digest import manifest_seal
    from softlabels.store.json_files import pretty_json

    before = open_store(store / "train").manifest
    forged = replace(before, about=replace(before.about, teacher_licence="do as you like"))
    forged = replace(forged, seal=manifest_seal(forged))
    (store / "train" / "manifest.json").write_bytes(pretty_json(forged))
    assert open_store(store / "train").digest == before.digest
    with pytest.raises(NotSigned):
        open_store(store / "train", signed_by=team[1])


def test_a_split_in_the_place_of_another(store: Path, team: tuple[str, str]) -> None:
    shutil.rmtree(store / "test")
    shutil.copytree(store / "train", store / "test")
    with pytest.raises(SpecMismatch, match="in the place of the split test, and was signed as the split train"):
        open_splits(Source((store,), pinned=Pinned(team[1])), None)
    assert main(["verify", str(store), f"--signed_by={team[1]}"]) == 3


def test_pinned_digests_are_of_every_split(store: Path) -> None:
    pinned = {split: open_store(store / split).digest for split in ("train", "test")}
    assert len(open_splits(Source((store,), pinned=Pinned(digest=pinned)), None)) == 2
    open_splits(Source((store,), pinned=Pinned(digest=pinned)), None, only="test")
    for wrong, what in (
        (pinned | {"test": "0" * 64}, "has the digest"),
        ({"train": pinned["train"]}, "no digest is pinned for the split test"),
        (pinned | {"extra": "0" * 64}, "the store has no split extra"),
    ):
        with pytest.raises(SpecMismatch, match=what):
            open_splits(Source((store,), pinned=Pinned(digest=wrong)), None)
    with pytest.raises(ConfigError, match="is no digest"):
        open_splits(Source((store,), pinned=Pinned(digest=pinned | {"test": "new"})), None)
    with pytest.raises(UserError, match="reads values that no digest vouches for"):
        open_store(store / "train", check="never", digest=pinned["train"])


def test_it_travels(store: Path, team: tuple[str, str], tmp_path: Path) -> None:
    place, (own, other) = MemoryDepot(), keys(tmp_path, "other")
    push(store, place)
    sign(store, own)
    push(store, place)  # more signatures of what is there
    _, stranger = keys(tmp_path, "stranger")
    with pytest.raises(NotSigned):
        pull(place, tmp_path / "none", signed_by=stranger)
    assert not (tmp_path / "none" / "train").exists()
    said: list[str] = []
    pull(place, tmp_path / "copy", split="train", signed_by=other, watch=Watch(said.append))
    assert said[-1] == f"train: every byte is as it was sealed, and as {public_key(other).fingerprint} signed it"
    for key in (other, team[1]):
        use(tmp_path / "copy" / "train", key)
    sign(tmp_path / "copy", keys(tmp_path, "third")[0])
    push(tmp_path / "copy" / "train", place.within("train"))
    pull(place, store)  # ours stay, theirs are added
    entry = store / "train" / "signatures.json"
    assert len(json.loads(entry.read_bytes())["signatures"]) == 3
    entry.write_text("[")
    with pytest.raises(DamagedManifest):  # before `test` is signed
        sign(store, keys(tmp_path, "fourth")[0])
    assert len(json.loads((store / "test" / "signatures.json").read_bytes())["signatures"]) == 2
    with pytest.raises(DamagedManifest, match=r"signatures\.json does not fit"):
        push(store / "train", empty := MemoryDepot())
    assert not [*empty.list()]
    pull(place, store)  # which mends it
    use(store / "train", team[1])


def test_some_rows_are_checked_while_they_are_pulled(store: Path, team: tuple[str, str], tmp_path: Path) -> None:
    said: list[str] = []
    pull(store / "train", tmp_path / "few", rows="3,35", signed_by=team[1], watch=Watch(said.append))
    signer = public_key(team[1]).fingerprint
    assert said[-1] == f"train: every byte is as it was sealed; of the whole as {signer} signed it"
    few = open_store(tmp_path / "few")
    assert few.spec.parents[0].digest == open_store(store / "train").digest
    with pytest.raises(NotSigned, match="is not signed"):  # a new store, which nobody signed: its parent is only a word
        open_store(tmp_path / "few", signed_by=team[1])
    logits = store / "train" / "logits" / "c.1.0.0"
    data = bytearray(logits.read_bytes())
    data[5] ^= 1
    logits.write_bytes(data)
    with pytest.raises(DamagedStore):
        pull(store / "train", tmp_path / "again", rows="35", signed_by=team[1])
    with pytest.raises(NotSigned):
        pull(store / "train", tmp_path / "other", rows="3", signed_by=keys(tmp_path, "other")[1])
    select(store / "test", tmp_path / "selected", rows="0:3")
    assert not (tmp_path / "selected" / "signatures.json").exists()


def test_repair_keeps_it_and_sets_aside_what_is_none(store: Path, team: tuple[str, str]) -> None:
    (store / "train" / "zarr.json").unlink()
    assert repair(store / "train").digest == open_store(store / "train").digest
    use(store / "train", team[1])
    (store / "train" / "signatures.json").write_text('{"signatures": [1]}')
    [problem] = verify(store / "train")
    assert problem.file == "signatures.json"
    with pytest.raises(DamagedManifest, match=r"signatures\.json does not fit the format"):
        open_store(store / "train", signed_by=team[1])
    repair(store / "train")
    assert verify(store / "train") == []
    assert (store / "train" / "set_aside" / "1" / "signatures.json").exists() or (
        store / "train" / "set_aside" / "2" / "signatures.json"
    ).exists()


def test_keys_that_are_refused(
    store: Path, team: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = Path(team[0]).read_text()
    with pytest.raises(ConfigError, match="is a private key, and a public key is needed"):
        public_key(team[0])
    with pytest.raises(ConfigError, match="holds no private key"):
        private_key(team[1])
    for text in (secret, secret.replace("\n", " ")):
        for read in (public_key, private_key):
            with pytest.raises(ConfigError, match="a key is given instead of the name of its file") as found:
                read(text)
            assert secret.splitlines()[1] not in str(found.value)
    for key, what in (
        (rsa.generate_private_key(65537, 2048), "holds a key of another kind"),
        (ec.generate_private_key(ec.SECP384R1()), "holds a key of another kind"),
    ):
        own, public = keys(tmp_path, "odd", key)
        for read, path in ((private_key, own), (public_key, public)):
            with pytest.raises(ConfigError, match=what):
                read(path)
    for data, what in (
        (b"", "holds no public key"),
        (b"x" * 70_000, "larger than any key"),
        (b"ssh-ed25519 AA", "holds no"),
    ):
        (tmp_path / "junk").write_bytes(data)
        with pytest.raises(ConfigError, match=what):
            public_key(str(tmp_path / "junk"))
    for text in ("ssh-ed25519 \udc80", "ssh-ed25519 AAAA"):
        with pytest.raises(ConfigError, match="the key holds no public key"):
            public_key(text)
    (tmp_path / "junk").write_text(2 * Path(team[1]).read_text())
    with pytest.raises(ConfigError, match="holds more than one key or line"):  # of which one would be trusted
        public_key(str(tmp_path / "junk"))
    (tmp_path / "junk").write_text("ssh-ed25519 AA\nssh-ed25519 AA\n")
    with pytest.raises(ConfigError, match="holds more than one key or line"):
        public_key(str(tmp_path / "junk"))
    with pytest.raises(StorageError, match="cannot read"):
        public_key("x" * 5000)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match="there is no file"):
            public_key(str(path))
    own = tmp_path / "locked.pem"
    made = ed25519.Ed25519PrivateKey.generate()
    own.write_bytes(made.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"open sesame")))
    monkeypatch.delenv(PASSPHRASE, raising=False)
    with pytest.raises(ConfigError, match=rf"is encrypted; put its passphrase into \${PASSPHRASE}"):
        sign(store, str(own))
    monkeypatch.setenv(PASSPHRASE, "hunter2")
    with pytest.raises(ConfigError, match="the right passphrase") as wrong:
        sign(store, str(own))
    assert "hunter2" not in str(wrong.value)
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    sign(store, str(own))
    private_key(team[0])  # which needs none


def test_commands(
    store: Path,
    team: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own, public = keys(tmp_path, "other")
    assert main(["sign", str(store), f"--key={own}"]) == 0
    mark = public_key(public).fingerprint
    assert f"signed by {mark}" in capsys.readouterr().out
    assert main(["verify", str(store), f"--signed_by={public}"]) == 0
    assert f"train: signed by {mark}" in capsys.readouterr().out
    assert main(["info", str(store / "train")]) == 0
    assert f"{mark}" in (said := capsys.readouterr().out)
    assert "(not checked: verify --signed_by)" in said
    assert "bytes; labels 20.0 bytes a row" in said
    assert main(["list", str(store), "--json"]) == 0
    assert {*json.loads(capsys.readouterr().out.splitlines()[0])["signed_by"]} == {
        mark,
        public_key(team[1]).fingerprint,
    }
    assert main(["list", str(store)]) == 0
    assert "signed (not checked) by SHA256:" in capsys.readouterr().out
    (store / "train" / "signatures.json").unlink()
    assert main(["verify", str(store), f"--signed_by={public}"]) == 3
    assert "train: " in (err := capsys.readouterr().err)
    assert "is not signed" in err
    for words in (
        ["sign"],
        ["sign", str(store)],
        ["verify", str(store), "--signed_by=none.pub"],
        ["verify", str(store), "--digest=1"],
    ):
        assert main(words) == 2
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main(["verify", str(store), f"--signed_by={public}"]) == 2
    assert "softlabels[sign]" in capsys.readouterr().err


def test_a_recipe_that_pins(
    store: Path,
    team: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every command that takes the rows of a recipe refuses other stores, before it looks at a value or writes a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("softlabels.store.chunks.ChunkReader.read", None)
    student = {"class_path": "softlabels.models.MLP", "init_args": {"inputs": 2, "hidden": [2], "classes": 3}}
    Path("recipe.yaml").write_text(
        json.dumps({"name": "mine", "student": student, "pinned": {"signed_by": "other.pub"}})
    )
    keys(tmp_path, "other")
    Path("w.safetensors").write_bytes(b"")
    for words in (
        ["train-student", f"--store={store}"],
        ["evaluate", f"--store={store}"],
        ["evaluate", "w.safetensors", f"--store={store}"],
        ["export", "w.safetensors", f"--store={store}"],
    ):
        assert main([*words, "--config=recipe.yaml"]) == 3, words
        assert "is not signed by" in capsys.readouterr().err
        assert (
            main([*words, "--config=recipe.yaml", f"--pinned.signed_by={team[1]}", "--pinned.digest.train=" + "a" * 64])
            == 2
        )
        assert "no digest is pinned for the split test" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_at_most_so_many() -> None:
    each = [Signature(key=f"SHA256:{n:043}", signature="00" * 64) for n in range(65)]
    assert len(json.loads(signatures_file((), tuple(each[:64])))["signatures"]) == 64
    with pytest.raises(ConfigError, match=r"at most 64 signatures, and these are 65"):
        signatures_file((each[0],), tuple(each[1:]))


def test_killed_while_it_signs(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, public = keys(tmp_path, "one")
    with monkeypatch.context() as patched:
        patched.setattr(LocalFolder, "place", lambda *given: os.kill(os.getpid(), signal.SIGKILL))
        child = multiprocessing.get_context("fork").Process(target=sign, args=(store, own))
        child.start()
        child.join(100)
    assert child.exitcode == -signal.SIGKILL
    assert verify(store / "test") == []
    sign(store, own)
    assert [*(store / "test").glob("staging")] == [*(store / "test").glob(".*")] == []
    use(store / "test", public)


def test_signing_reads_no_labels(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabels.store.chunks.ChunkReader.read", None)
    sign(store, keys(tmp_path, "one")[0])
