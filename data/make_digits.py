"""Write data/digits from the arrays that scikit-learn bundles: `python data/make_digits.py [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Array2D, ClassLabel, Dataset, Features
from sklearn.datasets import load_digits

TRAIN_ROWS = 1297  # the last 500 rows come from other writers
FEATURES = Features({"image": Array2D((8, 8), "uint8"), "label": ClassLabel(names=[str(digit) for digit in range(10)])})


def main(folder: Path) -> None:
    """Write one Parquet file a split into `folder`."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)  # whole numbers from 0 to 16
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", slice(0, TRAIN_ROWS)), ("test", slice(TRAIN_ROWS, None))):
        columns = {"image": list(images[rows]), "label": digits.target[rows].tolist()}
        table = Dataset.from_dict(columns, features=FEATURES).data.table
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", compression="zstd")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "digits")
