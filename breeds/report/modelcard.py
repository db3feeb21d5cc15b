"""The model card: what a model is, what it was trained and tested on, how good it is; Markdown beside it.

A card says in its first line what the rest of it is, as a SHA-256: so one that a person has edited is known,
and it and whatever else has the name are left as they are. It names the model's own SHA-256 too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from breeds import __version__
from breeds.config import MOST_BYTES
from breeds.errors import BreedsError
from breeds.files import open_regular, read_regular, write_aside
from breeds.heads.model import Model
from breeds.metrics import FEW
from breeds.started import command
from breeds.text import as_bytes, visible

# Bytes that a card can have, with thousands of classes.
_MOST = 2**24
_MARK = re.compile(rb"<!-- breeds model card 1 ([0-9a-f]{64}): [^\n]*-->\n")
_FIRST = (
    "<!-- breeds model card 1 {}: Breeds writes this file; once it is edited, Breeds leaves it as it is -->\n"
)
_MODEL = re.compile(rb"`([0-9a-f]{64})`")
# What is more than text in Markdown and its dialects (tables, links, HTML, mathematics, roles).
_MEANT = re.compile(r"""[\\`*_{}\[\]<>#$&!|~^=:@"]|(?<=www)\.""", re.IGNORECASE)


def card_path(model_path: Path) -> Path:
    """Return where the card of a model is."""
    return model_path.with_suffix(".md")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file that can be read, "" of another."""
    try:
        with open_regular(path, MOST_BYTES) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def write_card(model: Model, model_path: Path, digest: str, report: Mapping[str, Any] | None = None) -> str:
    """Write the card of a model, unless a person has edited the one that is there or it is none.

    Parameters
    ----------
    model, digest
        What the file `model_path` holds, and its SHA-256.
    report
        What `breeds.evaluation.measure` gives of it; without, the card says that it is to be evaluated.

    Returns
    -------
    str
        "", or the sentence that says why the card was not written: that is no reason to stop.
    """
    path = card_path(model_path)
    if os.path.realpath(path) == os.path.realpath(model_path):
        return f"{model_path} has no card, which would have its name"
    kept = _left_alone(path, digest)
    if kept:
        return kept
    text = as_bytes("\n".join([*_lines(model, model_path, digest, report), ""]))
    try:
        with write_aside(path) as aside:
            aside.write_bytes(_FIRST.format(hashlib.sha256(text).hexdigest()).encode() + text)
    except BreedsError as error:
        return str(error)
    return ""


def _left_alone(path: Path, digest: str) -> str:
    """Say why the file at `path` is not replaced by the card of the model `digest`, "" if it may be."""
    try:
        found = read_regular(path, _MOST)
    except FileNotFoundError:
        if os.path.lexists(path):
            return f"the model's card is not written: {path} is a link to nothing"
        return ""
    except OSError as error:
        return f"the model's card is not written: {path} cannot be read ({error.strerror or error})"
    mark = _MARK.match(found)
    if not found or (mark and hashlib.sha256(found[mark.end() :]).hexdigest().encode() == mark[1]):
        return ""
    if not mark:
        return f"the model's card is not written: {path} is none of Breeds's; move it away to have one"
    named = _MODEL.search(found)
    stale = "" if named and named[1].decode() == digest else ", but describes another model than is there now"
    return f"{path} has been edited and stays as it is{stale}; move it away to have a new one"


def escape(text: str) -> str:
    r"""Return text as one line of Markdown that is that text, and nothing else.

    Examples
    --------
    >>> print(escape("[a](http://b) | *c*\n# <d>"))
    \[a\](http\://b) \| \*c\*\\n\# \<d\>
    """
    return _MEANT.sub(r"\\\g<0>", visible(text))


def _lines(model: Model, model_path: Path, digest: str, report: Mapping[str, Any] | None) -> Iterator[str]:
    yield f"# {escape(model_path.stem)}"
    yield ""
    yield (
        f"A classifier of photos: which of {len(model.classes)} classes a photo shows. A frozen network "
        f"makes features of it, and a {model.kind} head, trained on these, answers. Made with Breeds "
        f"{__version__}."
    )
    yield from ("", "## How to use it", "", *_use(model, model_path))
    yield from ("", "## What it is", "", *_table(_is(model, model_path, digest)))
    yield from ("", "## What it was trained on", "", *_table(_trained(model)))
    yield from ("", "## How good it is", "")
    if report is None:
        yield f"Not evaluated yet: `{command('evaluate')}` measures it and fills this in."
    else:
        yield from _measured(report)
    yield from ("", "## What to be careful with", "", *_caveats(model, report))


def _use(model: Model, model_path: Path) -> Iterator[str]:
    name = visible(model_path.name)
    yield from ("```sh", f"{command('predict')} PHOTOS --model {shlex.quote(name)}", "```", "")
    yield from ("```python", "import breeds", "")
    yield f'table = breeds.predict({json.dumps(name)}, ["photo.jpg"])'
    yield from ("```", "")
    if any(config.weights not in ("imagenet", "random") for config, _ in model.parts):
        yield "The weights of the network are a file of its own, which `--weights` names where it has moved."
    else:
        yield "The network and its weights are fetched, or made, when they are needed first."


def _table(rows: Mapping[str, str]) -> Iterator[str]:
    yield from ("| | |", "|---|---|")
    for name, value in rows.items():
        yield f"| {name} | {value} |"


def _is(model: Model, model_path: Path, digest: str) -> dict[str, str]:
    """Say what the model is; keys and values are Markdown."""
    rows = {"file": escape(model_path.name), "SHA-256 of the file": f"`{digest}`"}
    for number, (config, _) in enumerate(model.parts, start=1):
        which = f" {number}" if model.also else ""
        rows[f"network{which}"] = escape(str(config))
        rows[f"SHA-256 of its weights{which}"] = escape(config.weights_sha256)
    rows["head"] = escape(f"{model.kind}, temperature {model.temperature:.3g}")
    if "C" in model.record:
        chosen_by = model.record.get("C_chosen_by")
        rows["C"] = escape(f"{model.record['C']:.3g}" + (f", chosen by {chosen_by}" if chosen_by else ""))
    rows["photos of none of the classes"] = (
        f"answered `unknown`; set to keep {model.unknown.keep:.0%} of known photos"
        if model.unknown
        else "not told from others"
    )
    return rows


def _trained(model: Model) -> dict[str, str]:
    """Say what the model was trained on; keys and values are Markdown."""
    record = model.record
    stores = [str(path) for path in (record["store"], *record["also"])]
    rows = {
        "stores" if len(stores) > 1 else "store": escape(", ".join(map(os.path.basename, stores))),
        "photos for training": f"{record['n_train']}{_drawn(record)}",
        "photos for validation": str(record["n_val"]),
        "photos kept for testing": str(record["n_test"]),
        "classes": ", ".join(map(escape, model.classes)),
    }
    if record["views"]:
        rows["views of each photo too"] = escape(", ".join(record["views"]))
    for name in ("duplicates", "unlabelled"):
        if record[name]:
            rows[f"{name} left out"] = str(record[name])
    if record["corrections"].get("applied"):
        rows["labels that people have corrected"] = str(record["corrections"]["applied"])
    rows["seed of the split"] = str(record["seed"])
    return rows


def _drawn(record: Mapping[str, Any]) -> str:
    return f"; trained on {record['n_drawn']}, as memory held no more" if "n_drawn" in record else ""


def _measured(report: Mapping[str, Any]) -> Iterator[str]:
    """Lay out numbers with their 95 % intervals."""
    yield (
        f"Measured on {report['n_test']} photos of {escape(os.path.basename(report['store']))} that training "
        f"has not seen."
    )
    yield from ("", "| | | 95 % interval |", "|---|---|---|")
    named = {"accuracy": "accuracy", "truth among the first three": "top3"}
    if len(report["classes"]) <= 3:  # then the truth is always one of three
        del named["truth among the first three"]
    for title, name in named.items():
        yield f"| {title} | {report[name]:.1%} | {_interval(report[f'{name}_interval'], '.1%')} |"
    for title, name in (("log loss", "log_loss"), ("macro F1", "macro_f1")):
        yield f"| {title} | {report[name]:.4f} | {_interval(report[f'{name}_interval'], '.4f')} |"
    calibration, unknown = report["calibration"], report["unknown"]
    brier, ece = calibration["brier_after"], calibration["ece_after"]
    yield f"| Brier score | {brier:.4f} | {_interval(calibration['brier_interval'], '.4f')} |"
    yield f"| expected calibration error | {ece:.3f} | none: resampling can only raise it |"
    if unknown:
        kept = _interval(unknown["kept_interval"], ".1%")
        yield f"| known photos not refused as `unknown` | {unknown['kept']:.1%} | {kept} |"
    corrected = report["corrected"]
    if corrected and corrected["accuracy"] is not None:
        among = _interval(corrected["accuracy_interval"], ".1%")
        yield f"| accuracy by labels as corrected | {corrected['accuracy']:.1%} | {among} |"
    yield from ("", "| class | photos tested | precision | recall | F1 |", "|---|---|---|---|---|")
    for name, found in report["per_class"].items():
        scores = " | ".join(f"{found[score]:.3f}" for score in ("precision", "recall", "f1"))
        yield f"| {escape(name)} | {found['support']} | {scores} |"


def _interval(bounds: list[float] | None, form: str) -> str:
    if bounds is None:
        return "none: every resample gives the same"
    return f"{bounds[0]:{form}} to {bounds[1]:{form}}"


def _caveats(model: Model, report: Mapping[str, Any] | None) -> Iterator[str]:
    """List why numbers may flatter, and what the model cannot know."""
    yield f"- {model.caveat}"
    yield "- It knows photos like those it was trained on; of other framing, light and quality it knows less."
    if model.unknown is None:
        yield "- A photo of none of its classes is answered with one of them."
    else:
        yield "- Some photos of none of its classes pass for one of them, and some of one are refused."
    if model.record["few"]:
        named = ", ".join(map(escape, model.record["few"]))
        yield f"- Of these classes it was trained on fewer than {FEW} photos: {named}."
    if report is not None:
        few = [escape(name) for name, found in report["per_class"].items() if found["support"] < FEW]
        if few:
            yield f"- Of these fewer than {FEW} were tested, which says little: {', '.join(few)}."
        if report["corrected"]:
            yield f"- {report['corrected']['caveat']}"
