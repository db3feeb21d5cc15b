"""The charts of a report and of a preview, and all of a report's as files for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from breeds.metrics import wilson_interval
from breeds.outputs import CHART, check_output
from breeds.report.chart import FILES, SIZE, Chart, Colours, add_legend, new_axes
from breeds.report.render import percent
from breeds.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from breeds.evaluation import Tested

Floats = NDArray[np.float64]
#: More classes than this do not have their names written beside bars.
_NAMED = 30
#: What charts are called that `write_figures` may write.
NAMES = ("confusion", "reliability", "coverage", "photos-per-class", "search", "refusal")


def write_figures(numbers: dict[str, Any], tested: Tested, folder: Path) -> list[Path]:
    """Write the charts and the confusion matrix as PNG and SVG at print quality; return the files.

    Raises
    ------
    BreedsError
        If they cannot be written.
    """
    matrix = confusion(np.array(numbers["confusion"]), tested.model.classes)
    return [file for chart in (matrix, *draw_charts(numbers, tested)[0]) for file in chart.save(folder)]


def check_figures(folder: Path) -> None:
    """Make sure, before any work, that `write_figures` can write into `folder` and replaces only its own.

    Raises
    ------
    BreedsError
        If it cannot, or would replace something else.
    """
    for name in NAMES:
        for kind in FILES:
            check_output(folder / f"{name}.{kind}", CHART)


def draw_charts(numbers: dict[str, Any], tested: Tested) -> tuple[list[Chart], list[str]]:
    """Return the charts that can be drawn, and a sentence for each that cannot."""
    record, model = tested.model.record, tested.model
    probabilities = tested.probabilities
    is_right = probabilities.argmax(axis=1) == tested.truth
    drawn = [
        reliability(is_right, probabilities.max(axis=1)),
        coverage(numbers["coverage"], numbers["coverage_interval"]),
        photos_per_class(*_photos_per_class(tested)),
    ]
    missing = []
    if record.get("cv_log_loss"):
        drawn.append(search(record["cv_log_loss"], record["C"]))
    else:
        missing.append("C was not searched for, so there is no chart of it.")
    if model.unknown is not None and tested.excess is not None:
        drawn.append(refusal(tested.excess, is_right, model.unknown.threshold))
    else:
        missing.append("The model refuses no photo as none of these: it had too few to learn that from.")
    return drawn, missing


def _photos_per_class(tested: Tested) -> tuple[dict[str, list[int]], list[str]]:
    """Count the store's labelled photos, class by class, in training, testing and neither.

    Those for testing by their labels as they came, the others as corrected.
    """
    table, seen = tested.store.corrected, tested.model.seen_keys()
    is_tested = set(tested.rows.tolist())
    counts: dict[str, list[int]] = {name: [0, 0, 0] for name in tested.model.classes}
    for truth in tested.truth.tolist():
        counts[tested.model.classes[truth]][1] += 1
    for row in table.labelled_rows():
        if row not in is_tested:
            part = 0 if table.key[row] in seen else 2
            counts.setdefault(table.label[row], [0, 0, 0])[part] += 1
    return counts, ["training", "testing", "neither"]


def reliability(is_right: NDArray[np.bool_], confidence: Floats, bins: int = 10) -> Chart:
    """Chart how often answers of about one probability are right, equal-width bins (Guo et al., 2017).

    Parameters
    ----------
    is_right
        Of every photo, shape (n,).
    confidence
        The probability of its answer, float64 (n,).
    """
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    filled = np.flatnonzero(count)
    said = np.bincount(bin_of, weights=confidence, minlength=bins)[filled] / count[filled]
    share = np.bincount(bin_of, weights=is_right, minlength=bins)[filled] / count[filled]
    bounds = np.array([wilson_interval(s * n, int(n)) for s, n in zip(share, count[filled], strict=True)])

    def draw(colours: Colours) -> Figure:
        figure, axes = new_axes(
            colours, "probability that the model gives its answer", "share of them that is right"
        )
        axes.plot([0, 1], [0, 1], color=colours.quiet, linewidth=1, linestyle=(0, (4, 3)))
        spread = np.abs(bounds.T - share)
        axes.errorbar(said, share, yerr=spread, fmt="none", ecolor=colours.accent, alpha=0.5, linewidth=1.2)
        axes.scatter(said, share, s=14 + 110 * np.sqrt(count[filled] / count.max()), color=colours.accent)
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03))
        _percent_ticks(axes.xaxis, axes.yaxis)
        return figure

    last = filled[-1]
    words = (
        f"Reliability: of the {count[last]} answers given with a probability of {percent(last / bins, 0)} or "
        f"more, {percent(share[-1])} are right. Points on the diagonal mean honest probabilities."
    )
    return Chart("reliability", "Are the probabilities honest?", words, draw)


def coverage(points: Sequence[Sequence[float]], intervals: Sequence[Sequence[float]]) -> Chart:
    """Chart accuracy when only the surest answers are given: (share answered, accuracy) with intervals."""
    share, accuracy = np.array(points).T
    low, high = np.array(intervals).T

    def draw(colours: Colours) -> Figure:
        figure, axes = new_axes(
            colours, "share of photos that is answered, the surest first", "accuracy of these"
        )
        axes.fill_between(share, low, high, color=colours.accent, alpha=0.18, linewidth=0)
        axes.plot(share, accuracy, color=colours.accent, linewidth=1.8, marker="o", markersize=4)
        axes.set_ylim(max(0.0, float(low.min()) - 0.02), 1.003)
        _percent_ticks(axes.xaxis, axes.yaxis)
        return figure

    middle = len(share) // 2
    words = (
        f"Accuracy against coverage: {percent(accuracy[0])} right when all are answered, "
        f"{percent(accuracy[middle])} when the surest {percent(share[middle], 0)} are, "
        f"{percent(accuracy[-1])} when {percent(share[-1], 0)} are. The band is the 95 % interval."
    )
    return Chart("coverage", "What if it answers only when sure?", words, draw)


def search(losses: Mapping[str, float], chosen: float) -> Chart:
    """Chart the cross-validated log loss of every C that the search has tried."""
    tried = sorted((float(c), loss) for c, loss in losses.items())
    strengths, values = np.array(tried).T
    best = min(tried, key=lambda pair: abs(pair[0] - chosen))

    def draw(colours: Colours) -> Figure:
        figure, axes = new_axes(colours, "C: to the right, less regularisation", "log loss, cross-validated")
        axes.plot(strengths, values, color=colours.accent, linewidth=1.8, marker="o", markersize=4)
        axes.scatter(*best, s=90, facecolors="none", edgecolors=colours.wrong, linewidths=1.8, zorder=3)
        axes.set_xscale("log")
        if len(tried) == 1:
            axes.set_xlim(best[0] / 10, best[0] * 10)
        axes.minorticks_off()
        ticks = strengths[:: -(-len(tried) // 5)]
        axes.set_xticks(ticks, [f"{c:.2g}" for c in ticks])
        axes.annotate(
            f"{chosen:.3g}", best, xytext=(0, -20), textcoords="offset points", ha="center", color=colours.ink
        )
        axes.margins(y=0.25)
        return figure

    words = (
        f"Search for C: of {len(tried)} strengths tried, {chosen:.3g} has the lowest cross-validated "
        f"log loss, {best[1]:.4f}."
    )
    return Chart("search", "How C was chosen", words, draw)


def photos_per_class(counts: Mapping[str, Sequence[int]], parts: Sequence[str]) -> Chart:
    """Chart how many photos each class has, in `parts` such as training and testing, largest first."""
    names = sorted(counts, key=lambda name: (-sum(counts[name]), name))
    stacks = np.array([counts[name] for name in names]).T
    totals = stacks.sum(axis=0)
    is_named = len(names) <= _NAMED

    def draw(colours: Colours) -> Figure:
        height = max(SIZE[1], 0.21 * len(names) + 0.7) if is_named else SIZE[1]
        labels = ("photos", "") if is_named else (f"{len(names)} classes, the largest first", "photos")
        figure, axes = new_axes(colours, *labels, (SIZE[0], height))
        start = np.zeros(len(names))
        places = np.arange(len(names))
        for stack, part, alpha in zip(stacks, parts, (1.0, 0.5, 0.3), strict=False):
            if not stack.any():
                continue
            if is_named:
                axes.barh(
                    places, stack, left=start, color=colours.accent, alpha=alpha, height=0.7, label=part
                )
            else:
                axes.bar(places, stack, bottom=start, color=colours.accent, alpha=alpha, width=1, label=part)
            start += stack
        if is_named:
            axes.set_yticks(places, [_short(name) for name in names])
            axes.invert_yaxis()
            axes.grid(visible=False, axis="y")
        else:
            axes.set_xticks([])
        add_legend(figure, colours)
        return figure

    words = (
        f"Photos per class: {totals.sum():,} in {len(names)} classes, from {totals.max()} "
        f"({names[0]}) to {totals.min()} ({names[-1]})."
    )
    return Chart("photos-per-class", "Photos per class", words, draw)


def refusal(excess: Floats, is_right: NDArray[np.bool_], threshold: float) -> Chart:
    """Chart by how much photos are farther from their class than is typical, and where refusal begins."""
    low, high = float(min(excess.min(), threshold)), float(max(excess.max(), threshold))
    edges = np.linspace(low, high + 1e-9, 31)
    refused = int((excess > threshold).sum())

    def draw(colours: Colours) -> Figure:
        figure, axes = new_axes(colours, "distance to the nearest class, beyond what is typical", "photos")
        groups = [excess[is_right], excess[~is_right]]
        axes.hist(
            groups, bins=edges.tolist(), stacked=True, color=[colours.accent, colours.wrong],
            label=["answered rightly", "answered wrongly"],
        )  # fmt: skip
        axes.axvline(threshold, color=colours.ink, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            "refused →", (threshold, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
            textcoords="offset points", color=colours.ink, fontsize=10,
        )  # fmt: skip
        axes.set_xlim(right=high + 0.2 * (high - low))
        add_legend(figure, colours)
        return figure

    words = (
        f"Distances: {refused} of {len(excess)} tested photos lie beyond the threshold and are refused as "
        f"none of these."
    )
    return Chart("refusal", "What is refused as none of these", words, draw)


def confusion(matrix: NDArray[np.intp], classes: Sequence[str]) -> Chart:
    """Chart a confusion matrix, counts (classes, classes): rows are the truth, columns the answers."""

    def draw(colours: Colours) -> Figure:
        side = max(4.2, min(14.0, 0.32 * len(classes) + 2.2))
        figure, axes = new_axes(colours, "answer", "truth", (side, side))
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap=_map_of(colours.accent), vmin=0, vmax=1, aspect="equal")
        axes.grid(visible=False)
        size = 9 if len(classes) <= _NAMED else 4.5
        names = [_short(name) for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=90, fontsize=size)
        axes.set_yticks(range(len(classes)), names, fontsize=size)
        for row, column in np.argwhere(matrix):
            colour = "white" if share[row, column] > 0.5 else colours.ink
            axes.text(column, row, matrix[row, column], ha="center", va="center", fontsize=size, color=colour)
        return figure

    right = int(matrix.trace())
    words = f"Confusion matrix: {right} of {matrix.sum()} photos on the diagonal."
    return Chart("confusion", "Which breeds are taken for which", words, draw)


def sizes(width: NDArray[np.int32], height: NDArray[np.int32], network: int) -> Chart:
    """Chart the widths and heights of photos, int32 (n,), beside the network's input.

    Photos of about the same size are one dot, the larger the more there are.
    """
    points, counts = np.unique(_rounded(np.stack([width, height], axis=1)), axis=0, return_counts=True)
    low, high = min(points.min(), network) / 1.25, max(points.max(), network) * 1.25

    def draw(colours: Colours) -> Figure:
        figure, axes = new_axes(colours, "width in pixels", "height in pixels", (5.2, 4.8))
        axes.plot([low, high], [low, high], color=colours.quiet, linewidth=1, linestyle=(0, (4, 3)))
        axes.scatter(
            *points.T, s=12 + 260 * counts / counts.sum(), color=colours.accent, alpha=0.6, linewidths=0
        )
        axes.scatter(
            network, network, s=60, marker="s", facecolors="none", edgecolors=colours.ink, linewidths=1.5
        )
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            _pixel_ticks(axis, is_wide=high > 30 * low)
        return figure

    words = (
        f"Widths and heights of {len(width):,} photos: widths from {width.min()} to {width.max()} pixels, "
        f"heights from {height.min()} to {height.max()}; the network takes {network}×{network}."
    )
    return Chart("sizes", "Width and height", words, draw)


def _rounded(pixels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Round to steps of a thirtieth of a doubling: 2.3 %, less than a dot is wide."""
    return np.exp2(np.round(np.log2(pixels) * 30) / 30).round().astype(np.int64)


def _pixel_ticks(axis: Any, is_wide: bool) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_wide else (1, 2, 3, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_locator(NullLocator())


def _map_of(colour: str) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shade", ["#ffffff", colour])


def _percent_ticks(*axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))


def _short(name: str, longest: int = 24) -> str:
    name = " ".join(printable(name).split()) or "?"
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
