"""What all plots share: a figure that becomes PNG bytes in a file, and lines that stay apart in colour and in black and white.

matplotlib (extra `[report]`) is imported here, when a plot is drawn, and nothing of it is global: no backend is switched,
no style of the user's is read. What is plotted is `plots`' and `curves`' business.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from softlabels.objects import require_extra
from softlabels.system.local import write_atomically

DPI = 150
# Okabe and Ito's colours, which colour-blind readers can tell apart; without yellow, which vanishes on white paper, and
# black, which is the hard student's.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
HARD = {"color": "#000000", "linestyle": (0, (7, 3))}
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LEGEND_LINE = 0.21  # inches of height that one line of the legend takes
_STYLE = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8, "xtick.labelsize": 8,
    "ytick.labelsize": 8, "axes.grid": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.6,
}  # fmt: skip


@contextmanager
def figure_in(path: Path, *, width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure of so many inches, written to `path` as PNG at the end of the block; atomically, so that no half
    picture is ever there.

    Raises:
        MissingExtra: matplotlib is not installed.
        DiskFull, StorageError: the file cannot be written.
    """
    matplotlib = require_extra("matplotlib", extra="report")
    figure_module = require_extra("matplotlib.figure", extra="report")
    agg = require_extra("matplotlib.backends.backend_agg", extra="report")
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        matplotlib.rcParams.update(_STYLE)
        figure = figure_module.Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08, wspace=0.03)  # inches, so that no text touches an edge
        agg.FigureCanvasAgg(figure)
        yield figure
        data = io.BytesIO()
        figure.savefig(data, format="png", metadata={"Software": None})  # the version would make equal plots differ
    write_atomically(path, data.getvalue())


def line_style(number: int, count: int) -> dict[str, Any]:
    """Colour, dashes and marker of line `number` of `count`: up to six have a colour each; more run from dark to light
    in their order, with dashes and markers in turn.
    """
    dashes, marker = _DASHES[number % len(_DASHES)], _MARKERS[number % len(_MARKERS)]
    if count <= len(_COLOURS):
        return {"color": _COLOURS[number], "linestyle": dashes, "marker": marker}
    colours = require_extra("matplotlib", extra="report").colormaps["viridis"]
    return {"color": colours(0.9 * number / (count - 1)), "linestyle": dashes, "marker": marker}


def legend_below(figure: Any, handles: Mapping[str, Any]) -> None:
    """One legend for all panels, by label, below them, where it covers nothing: the figure grows by its lines."""
    # Inches: a character of its size takes about 0.07, a line 0.5.
    fitting = int(figure.get_figwidth() / (0.5 + 0.07 * max(map(len, handles), default=1)))
    columns = max(1, min(len(handles), fitting))
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * math.ceil(len(handles) / columns))
    labels = [plain_text(label) for label in handles]
    figure.legend(handles.values(), labels, loc="outside lower center", ncols=columns, handlelength=3.2)


def plain_text(text: str) -> str:
    """The text as it reads: matplotlib would set what stands between dollar signs as a formula."""
    return text.replace("$", r"\$")


def far_apart(values: Sequence[float], factor: float) -> bool:
    """Whether values are positive and differ by more than `factor`, so that a logarithmic axis shows them better."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > factor


def log_y(axes: Any) -> None:
    """A logarithmic y axis with plain numbers (0.02, 0.05, 0.1) at its ticks."""
    ticker = require_extra("matplotlib.ticker", extra="report")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
