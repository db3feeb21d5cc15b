"""How good is the model on photos it has not seen? Numbers here, and all of them as JSON."""

from __future__ import annotations

import argparse
import os.path
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from breeds.cli import common
from breeds.started import command
from breeds.text import say

if TYPE_CHECKING:
    from breeds.heads.model import Model


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = common.parser(__doc__, "evaluate")
    add = result.add_argument
    add("--store", metavar="FILE", type=Path, nargs="+",
        help="the store with the photos to test on; several for a model that rests on several "
        "(default: what the model was trained on)")  # fmt: skip
    add("--model", metavar="FILE", type=Path, help="the model (default: the newest in models/)")
    add("--json", metavar="FILE", type=Path,
        help="the report to write, with a page of the same name, .html, beside it (default: "
        "reports/MODEL.json)")  # fmt: skip
    add("--no-html", action="store_true", default=False, help="write no page")
    add("--figures", metavar="DIR", type=Path,
        help="also write the charts and the confusion matrix there, as PNG and SVG "
        "(default: no)")  # fmt: skip
    add("--cv", metavar="FxR", type=common.folds_and_repeats,
        help="also cross-validate the head: F folds, R times, such as 5x2 (default: no)")  # fmt: skip
    add("--against", metavar="MODEL", type=Path,
        help="also compare with this model on photos that neither has seen (default: no)")  # fmt: skip
    common.add_no_corrections(result)
    add("--doubts", action="store_true", default=False,
        help="also list photos whose label is doubtful, and near duplicates across classes")  # fmt: skip
    return result


def trained_on(model: Model, model_path: Path) -> list[Path]:
    """Return the stores that a model was trained on, and say on stderr which they are.

    A relative path in the record starts from the folder that training ran in: this one, or the
    one that holds the model's folder.

    Raises
    ------
    BreedsError
        If a store cannot be found.
    """
    from breeds.errors import BreedsError

    stores = []
    for recorded in (str(path) for path in (model.record.get("store", ""), *model.record.get("also", []))):
        places = [Path(recorded), model_path.absolute().parent.parent / recorded]
        found = next((place for place in places if os.path.isfile(place)), None)  # False on any error
        if found is None:
            raise BreedsError(
                f"The store that {model_path} was trained on, {recorded or 'whose name is not recorded'}, "
                f"cannot be found; name where it is now, or another one, with --store."
            )
        stores.append(common.say_using(found))
    return stores


def main() -> int:
    """Evaluate, print the report, and write it."""
    arguments = parser().parse_args()
    model_path = arguments.model or common.newest(common.MODELS, "*.safetensors", command("train"))
    json_path = arguments.json or common.REPORTS / f"{model_path.stem}.json"
    page = None if arguments.no_html else json_path.with_suffix(".html")
    from breeds.errors import BreedsError
    from breeds.evaluation import answer_test_photos, measure, write_json
    from breeds.features import Store
    from breeds.heads.crossval import compare_models
    from breeds.heads.model import Model
    from breeds.outputs import PAGE, REPORT, check_output
    from breeds.report import terminal
    from breeds.report.modelcard import card_path, file_digest, write_card

    if page == json_path:
        raise BreedsError(f"--json {json_path} is the name of the page beside it; name a .json file.")
    check_output(json_path, REPORT)
    if page:
        check_output(page, PAGE)
    if arguments.figures:
        from breeds.report.charts import check_figures, write_figures

        check_figures(arguments.figures)
    digest = file_digest(model_path)
    model = Model.load(model_path)
    stores = arguments.store or trained_on(model, model_path)
    store = Store(*stores, corrected=not arguments.no_corrections)
    if arguments.against:
        other = Model.load(arguments.against)
        same = [config.digest for config, _ in other.parts] == [config.digest for config, _ in model.parts]
        other_store = store if same else Store(*trained_on(other, arguments.against), corrected=False)
    tested = answer_test_photos(store, model)
    numbers = measure(tested) | {"model": str(model_path)}
    text = [*store.corrections.effect(store.table).sentences(), *terminal.as_lines(numbers)]
    if arguments.cv:
        from breeds.heads.crossval import cross_validate

        numbers["cross_validation"] = cross_validate(store, model, *arguments.cv)
        text += ["", terminal.cross_validation_text(numbers["cross_validation"])]
    if arguments.against:
        numbers["against"] = compare_models(store, model, other_store, other)
        text += ["", f"against {arguments.against}: {terminal.against_text(numbers['against'])}"]
    found = None
    if arguments.doubts:
        from breeds.heads.label_issues import find_doubts, find_near_duplicates

        doubts, pairs = found = find_doubts(store), find_near_duplicates(store)
        numbers["doubts"] = [asdict(doubt) for doubt in doubts]
        numbers["near_duplicates"] = [asdict(pair) for pair in pairs]
        text += ["", *terminal.doubts_lines(doubts, pairs)]
    write_json(numbers, json_path)
    written = [str(json_path)]
    if page:
        from breeds.report.page import write_report

        write_report(numbers, tested, page, found)
        written.append(str(page))
    if arguments.figures:
        written.append(
            f"{len(write_figures(numbers, tested, arguments.figures))} files in {arguments.figures}"
        )
    kept = (
        write_card(model, model_path, digest, numbers)
        if digest == file_digest(model_path)
        else (f"{model_path} was replaced meanwhile, so its card says nothing of this")
    )
    if kept:
        text.append(kept)
    else:
        written.append(str(card_path(model_path)))
    say(*text, f"wrote {', '.join(written)}; next: {command('predict')} PHOTOS")
    return 0
