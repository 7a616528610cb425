"""What a soft label is: logits to stored numbers, stored numbers to a distribution at any temperature, for one model or an
ensemble, and what the storing lost. No disk and no models here; `store` keeps what this package encodes.

`dense`, `ensemble` and `fidelity` are numpy; `soft` is torch and is imported by its own name, so that a store can be read
where torch is not loaded.
"""

NO_LABEL = -1  # the hard label of a row or position that has none
