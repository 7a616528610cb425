"""Reads stores as somebody does who has never heard of us, with zarr, datasets and numpy alone: `python -I plain_reader.py
STORE` prints as JSON the dtype, the size and the sha256 of each column of each store. It runs where nothing of this project is.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np


def columns(path: Path) -> dict[str, np.ndarray]:
    import datasets
    import zarr

    if (path / "zarr.json").exists():
        group = zarr.open_group(path, mode="r")
        return {name: np.asarray(group[name][:]) for name in group.array_keys()}  # type: ignore[index]
    whole = datasets.load_from_disk(str(path))
    for each in ("numpy", "torch", None):  # whatever they make of it, they read it
        _ = whole.with_format(each)[:2]
    table, found = whole.with_format("arrow")[:], {}
    for name in table.column_names:
        array = table[name].combine_chunks()
        while array.type.num_fields:
            array = array.flatten()
        found[name] = array.to_numpy(zero_copy_only=False)
    return found


def facts(values: np.ndarray) -> list[object]:
    return [values.dtype.name, values.size, hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()]


if __name__ == "__main__":
    sys.modules["softlabels"] = None  # type: ignore[assignment]  # so that an import of it fails
    print(
        json.dumps({path: {name: facts(each) for name, each in columns(Path(path)).items()} for path in sys.argv[1:]})
    )
