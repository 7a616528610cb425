"""What a soft label is: logits to stored numbers, stored numbers to a distribution at any temperature, for one model or an
ensemble, and what the storing lost. No disk and no models here; `store` keeps what this package encodes.

Encodings, their references and `fidelity` are numpy, so that a store can be read where torch is not loaded; what runs on the
device is torch: `blocks`, `*_encode`, `tail_basis`, `soft`, `members`, `*_soft`, `standardise`.
"""

NO_LABEL = -1  # the hard label of a row or position that has none
