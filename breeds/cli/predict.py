"""What breed is it? Answers for any mix of photos, folders and addresses of photos on the web."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from breeds.backbones import ENGINE_CHOICES
from breeds.cli import common
from breeds.started import command, need
from breeds.text import say

if TYPE_CHECKING:
    from breeds.photos.inputs import Fetch


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = common.parser(__doc__, "predict")
    add = result.add_argument
    add("paths", metavar="PATH", nargs="+",
        help="photos, folders (searched to any depth), patterns, addresses (http, https) of photos on the "
             "web, tars and Parquet files of photos, folders of object storage (s3://BUCKET/photos), or - "
             "for a list of photos, folders and addresses of photos on stdin")  # fmt: skip
    add("--model", metavar="FILE", type=Path, help="the model (default: the newest in models/)")
    add("--weights", metavar="W",
        help="the backbone's weights: imagenet, random, or a file (default: those of the model)")  # fmt: skip
    add("--out", metavar="FILE", help="the file to write, or, with / at its end, the folder to write in "
        "parts of 100,000 answers (default: to the terminal)")  # fmt: skip
    add("--format", choices=("csv", "json", "parquet", "kaggle"),
        help="csv, one JSON object a line, Parquet (to a file), or Kaggle's submission format (default: as "
             "FILE ends, .jsonl or .parquet, else csv)")  # fmt: skip
    add("--html", metavar="FILE", type=Path,
        help="write a page of the answers too: every photo with its breed, to filter and to sort; the "
             "pictures of more than some 400 photos are in a folder beside it (default: no)")  # fmt: skip
    add(
        "--top-k", metavar="K", type=common.positive, default=1, help="how many breeds to name for each photo"
    )
    add("--engine", default="auto", choices=ENGINE_CHOICES,
        help="what computes the features; auto is openvino where it works, else keras")  # fmt: skip
    add("--tta", metavar="LIST",
        help="average over variants of every photo too: flip, crops:N, or both (default: none)")  # fmt: skip
    add("--explain", metavar="DIR", type=Path,
        help="save in this folder a picture of where the network looked for each photo, and a table of them "
             "with the nearest training photos; the network runs for every photo, also for those whose "
             "features are known (default: no)")  # fmt: skip
    add("--no-unknown", action="store_true", default=False,
        help="always name a breed, also for photos that seem to be of none")  # fmt: skip
    add("--workers", metavar="N", type=common.workers, default=os.cpu_count() or 2,
        help="threads that read and decode photos")  # fmt: skip
    add("--no-cache", action="store_true", default=False,
        help="neither use nor keep features in the model's folder, in features.sqlite")  # fmt: skip
    add("--no-network", action="store_true", default=False,
        help="refuse addresses of photos on the web; else each is fetched from a public machine, without "
             "proxies, with at most 20 MB, 15 seconds and five redirects")  # fmt: skip
    add("--cache-size", metavar="SIZE", type=common.size, default="1GB",
        help="how large features.sqlite may become, in MB or GB, the oldest photos dropped first: 1GB "
             "holds some 110,000 photos")  # fmt: skip
    return result


def main(fetch: Fetch | None = None) -> int:
    """Predict, and list what could not be read; tests give `fetch` to ask servers of their own."""
    arguments = parser().parse_args()
    model_path = arguments.model or common.newest(common.MODELS, "*.safetensors", command("train"))
    from breeds.errors import BreedsError
    from breeds.heads.model import Model
    from breeds.outputs import ANSWERS, ANSWERS_PARQUET, check_apart, check_output
    from breeds.photos import parse_views
    from breeds.photos.inputs import list_inputs
    from breeds.prediction import Predictor
    from breeds.report.answers import check_parts, format_of, write_answers, write_parts

    if arguments.html:  # who asks for neither does not wait for what they load
        from breeds.report.answers_page import AnswersPage
    if arguments.explain:
        from breeds.report.explanations import TABLE, PictureFolder

    started = time.perf_counter()
    in_parts = (arguments.out or "").endswith("/")
    arguments.out = Path(arguments.out) if arguments.out else None
    form, kind = arguments.format or format_of(arguments.out), ANSWERS
    if form == "parquet":
        if not arguments.out:
            raise BreedsError("Parquet is for files: name one with --out, such as --out breeds.parquet.")
        need("pyarrow")
        kind = ANSWERS_PARQUET
    if in_parts:
        check_parts(arguments.out)
    elif arguments.out:
        check_output(arguments.out, kind, arguments.paths)
    table = arguments.explain / TABLE if arguments.explain else None
    check_apart({"--html": arguments.html, "--out": arguments.out, "--explain": table})
    pictures = PictureFolder(arguments.explain) if arguments.explain else None
    page = AnswersPage(arguments.html, arguments.paths) if arguments.html else None
    photos = list_inputs(arguments.paths, sys.stdin or (), not arguments.no_network, fetch)
    model = Model.load(model_path)
    if arguments.no_unknown:
        model.unknown = None
    if model.config.weights == "random":
        say("the model rests on random weights: its answers say nothing about real dogs", file=sys.stderr)
    views = parse_views(arguments.tta) if arguments.tta else []
    cache = None if arguments.no_cache else model_path.parent
    with (
        closing(photos),
        Predictor(
            model, weights=arguments.weights, engine=arguments.engine, workers=arguments.workers, views=views,
            cache=cache, cache_bytes=arguments.cache_size, explain=pictures is not None,
        ) as predictor,
    ):  # fmt: skip
        answers = predictor.answers(photos)
        if pictures:
            answers = pictures.save(answers, model)
        if page:
            answers = page.watch(answers)
        write = write_parts if in_parts else write_answers
        total, failed = write(answers, model.classes, arguments.out, form, arguments.top_k)
        for answer in failed:
            say(f"no answer for {answer.path}: {answer.error}", file=sys.stderr)
        without = pictures.failed if pictures else []
        for path, reason in without:
            say(f"no picture for {path}: {reason}", file=sys.stderr)
        if page:
            page.write(model, model_path, views)
    outputs = (arguments.out, arguments.html, arguments.explain)
    written = " and ".join(str(path) for path in outputs if path)
    seconds = time.perf_counter() - started
    say(f"{total} photos = {total - len(failed)} answers + {len(failed)} without; {seconds:.1f} s"
          f"{f'; wrote {written}' if written else ''}", file=sys.stderr)  # fmt: skip
    return 1 if failed or without else 0
