"""The layout that a specification names."""

from __future__ import annotations

from softlabels.store.arrow_layout import ArrowLayout
from softlabels.store.layout import Layout
from softlabels.store.spec import Spec
from softlabels.store.zarr_layout import ZarrLayout


def layout_of(spec: Spec) -> Layout:
    """The layout that a specification names."""
    return ZarrLayout() if spec.layout == "zarr" else ArrowLayout()
