"""Reports for people: tables and sentences for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from breeds.metrics import FEW
from breeds.text import visible

if TYPE_CHECKING:
    from breeds.heads.label_issues import Doubt, NearDuplicate


def as_lines(report: dict[str, Any]) -> list[str]:
    """Lay a report out for a terminal, line by line: names are part of a line, whatever is in them."""
    lines = _scores(report)
    lines.append(f"photos     {report['n_test']} for testing, none of the {_trained(report)}")
    lines += _corrected(report["corrected"])
    lines.append(f"weights    {report['weights']['name']} ({report['weights']['sha256'][:12]})")
    lines += _few(report)
    if report["unknown"]:
        lines += _unknown(report["unknown"])
    lines += _coverage(report)
    return [*lines, "", *_class_table(report), "", *_confused(report), report["caveat"]]


def cross_validation_text(numbers: dict[str, Any]) -> str:
    """Lay out the numbers of `breeds.heads.crossval.cross_validate`."""
    text = f"cross-validation, {numbers['folds']} folds {numbers['repeats']} times on {_across(numbers)}"
    if numbers["corrected"]:
        text += f"; with labels as corrected, which may flatter, on {_across(numbers['corrected'])}"
    return text


def _across(numbers: dict[str, Any]) -> str:
    return (
        f"{numbers['photos']} photos: "
        f"accuracy {numbers['accuracy']:.2%} {_interval(numbers['accuracy_interval'], '.1%')} "
        f"(± {numbers['accuracy_spread']:.2%} between repeats), "
        f"log loss {numbers['log_loss']:.4f} {_interval(numbers['log_loss_interval'], '.4f')} "
        f"(± {numbers['log_loss_spread']:.4f}), "
        f"macro F1 {numbers['macro_f1']:.4f}"
    )


def against_text(numbers: dict[str, Any]) -> str:
    """Say in words what `breeds.heads.crossval.compare_models` has found."""
    text = str(numbers["in_words"])
    if numbers["corrected"]:
        text += f"; with labels as corrected, which may flatter: {numbers['corrected']['in_words']}"
    return text


def doubts_lines(doubts: Sequence[Doubt], pairs: Sequence[NearDuplicate]) -> list[str]:
    """List doubtful labels and near duplicates, one on each line."""
    lines = [f"{len(doubts)} doubtful labels, the most doubtful first:"]
    lines += [
        f"  {d.path}: called {d.label} ({d.label_probability:.1%}), looks like {d.suggestion} "
        f"({d.suggestion_probability:.0%})"
        for d in doubts
    ]
    lines.append(f"{len(pairs)} near duplicates across classes:")
    lines += [
        f"  {p.path} ({p.label}) and {p.other_path} ({p.other_label}): {p.similarity:.3f}" for p in pairs
    ]
    return lines


def _interval(bounds: list[float] | None, form: str) -> str:
    if bounds is None:
        return "(no interval: every resample gives the same)"
    return f"(95 % interval {bounds[0]:{form}} to {bounds[1]:{form}})"


def _scores(report: dict[str, Any]) -> list[str]:
    """One line for each number that says how good the answers are."""
    calibration = report["calibration"]
    named = [("accuracy", "accuracy", ".1%"), ("top 3", "top3", ".1%"), ("log loss", "log_loss", ".4f")]
    if len(report["classes"]) <= 3:  # among three answers the truth is always one of three
        del named[1]
    lines = [
        f"{title:9}  {report[name]:<6{form}}  {_interval(report[f'{name}_interval'], form)}"
        for title, name, form in [*named, ("macro F1", "macro_f1", ".3f")]
    ]
    return [
        *lines,
        f"Brier      {calibration['brier_after']:.4f}  {_interval(calibration['brier_interval'], '.4f')}; "
        f"before its temperature of {calibration['temperature']:.3g}: {calibration['brier_before']:.4f}",
        f"ECE        {calibration['ece_after']:.3f}; before: {calibration['ece_before']:.3f}",
    ]


def _corrected(found: dict[str, Any] | None) -> list[str]:
    """Say how good the answers are by labels as corrected, and how that number differs from the first."""
    if found is None:
        return []
    head = f"labels     as they came, in all numbers but the second accuracy and log loss: {touched(found)}"
    if found["accuracy"] is None:
        return [head]
    accuracy = f"{found['accuracy']:<6.1%}  {_interval(found['accuracy_interval'], '.1%')}"
    log_loss = f"{found['log_loss']:<6.4f}  {_interval(found['log_loss_interval'], '.4f')}"
    return [
        head,
        f"corrected  accuracy  {accuracy} on {found['n_test']} photos",
        f"           log loss  {log_loss}",
        f"           {found['caveat']}",
    ]


def touched(found: dict[str, Any]) -> str:
    """Say what corrections have done to the tested photos."""
    done = {"relabelled": found["relabelled"], "left out": found["left_out"]}
    what = " and ".join(f"{verb} {count}" for verb, count in done.items() if count)
    gone = f"; {found['n_gone']} came with a label that is no class now, and are only in the second numbers"
    return f"corrections have {what} of the tested photos{gone if found['n_gone'] else ''}"


def _trained(report: dict[str, Any]) -> str:
    """Say how many photos training had, so that all parts of the split add up."""
    val = f", none of the {report['n_val']} for validation" if report["n_val"] else ""
    return f"{report['n_train']} for training{val}"


def _few(report: dict[str, Any]) -> list[str]:
    """Name the classes of which too few photos are tested, at most ten of them."""
    few = [
        f"{name} ({scores['support']})"
        for name, scores in report["per_class"].items()
        if scores["support"] < FEW
    ]
    if not few:
        return []
    more = f" and {len(few) - 10} more" if len(few) > 10 else ""
    return [f"few        photos for testing, so little is known of: {', '.join(few[:10])}{more}"]


def _unknown(unknown: dict[str, Any]) -> list[str]:
    kept = f"unknown    keeps {unknown['kept']:.1%} of these photos, aim {unknown['kept_aimed_at']:.0%}  "
    kept += _interval(unknown["kept_interval"], ".1%")
    lines = [kept, "           (the aim is for photos of other framing, size and light too)"]
    if unknown["accuracy_of_kept"] is None:
        return lines
    interval = _interval(unknown["accuracy_of_kept_interval"], ".1%")
    return [*lines, f"           accuracy of the kept {unknown['accuracy_of_kept']:.1%}  {interval}"]


def _coverage(report: dict[str, Any]) -> list[str]:
    points = zip(report["coverage"], report["coverage_interval"], strict=True)
    return ["coverage   accuracy when only so many, the surest, are answered:"] + [
        f"           {f'{share:.0%}:':5} {f'{accuracy:.1%}':6}  {_interval(interval, '.1%')}"
        for (share, accuracy), interval in points
    ]


def _class_table(report: dict[str, Any]) -> list[str]:
    rows = [(visible(name), scores) for name, scores in report["per_class"].items()]
    width = max(5, *(len(name) for name, _ in rows))
    lines = [f"{'class':{width}}  precision  recall     f1  photos"]
    for name, scores in rows:
        lines.append(
            f"{name:{width}}  {scores['precision']:9.3f}  {scores['recall']:6.3f}  "
            f"{scores['f1']:5.3f}  {scores['support']:6d}"
        )
    return lines


def _confused(report: dict[str, Any]) -> list[str]:
    """List the most frequent mistakes, so that a large confusion matrix need not be printed."""
    matrix = np.array(report["confusion"])
    np.fill_diagonal(matrix, 0)
    if not matrix.any():
        return ["no photo was taken for another class", ""]
    names = report["classes"]
    worst = [divmod(int(cell), len(names)) for cell in np.argsort(-matrix, axis=None, kind="stable")[:5]]
    lines = [f"  {matrix[t, p]} × {names[t]} taken for {names[p]}" for t, p in worst if matrix[t, p]]
    return ["most confused:", *lines, ""]
