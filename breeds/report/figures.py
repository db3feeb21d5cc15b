"""The charts of a report, and all of them as files for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from breeds.evaluation import Tested
from breeds.outputs import CHART, check_output
from breeds.report import charts

#: What charts are called that `write_figures` may write.
NAMES = ("confusion", "reliability", "coverage", "photos-per-class", "search", "refusal")


def write_figures(numbers: dict[str, Any], tested: Tested, folder: Path) -> list[Path]:
    """Write the charts and the confusion matrix as PNG and SVG at print quality; return the files.

    Raises
    ------
    BreedsError
        If they cannot be written.
    """
    matrix = charts.confusion(np.array(numbers["confusion"]), tested.model.classes)
    return [file for chart in (matrix, *draw_charts(numbers, tested)[0]) for file in chart.save(folder)]


def check_figures(folder: Path) -> None:
    """Make sure, before any work, that `write_figures` can write into `folder` and replaces only its own.

    Raises
    ------
    BreedsError
        If it cannot, or would replace something else.
    """
    for name in NAMES:
        for kind in charts.FILES:
            check_output(folder / f"{name}.{kind}", CHART)


def draw_charts(numbers: dict[str, Any], tested: Tested) -> tuple[list[charts.Chart], list[str]]:
    """Return the charts that can be drawn, and a sentence for each that cannot."""
    record, model = tested.model.record, tested.model
    probabilities = tested.probabilities
    is_right = probabilities.argmax(axis=1) == tested.truth
    drawn = [
        charts.reliability(is_right, probabilities.max(axis=1)),
        charts.coverage(numbers["coverage"], numbers["coverage_interval"]),
        charts.photos_per_class(*_photos_per_class(tested)),
    ]
    missing = []
    if record.get("cv_log_loss"):
        drawn.append(charts.search(record["cv_log_loss"], record["C"]))
    else:
        missing.append("C was not searched for, so there is no chart of it.")
    if model.unknown is not None and tested.excess is not None:
        drawn.append(charts.refusal(tested.excess, is_right, model.unknown.threshold))
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
