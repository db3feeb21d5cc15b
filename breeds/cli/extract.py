"""Photos to features: run the backbone once over every photo and cache the result in HDF5.

Only what is missing is computed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from breeds.backbones import BACKBONES, ENGINE_CHOICES, PRECISIONS
from breeds.cli import common
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.outputs import view_store
from breeds.selection import Selection, add_options
from breeds.started import command
from breeds.text import say

if TYPE_CHECKING:
    from breeds.backbones.ray import RayPipeline
    from breeds.extraction import Summary


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = common.parser(f"{__doc__} Then: {command('train')}.", "extract")
    add_options(result)
    add = result.add_argument
    add("--store", metavar="FILE", type=Path,
        help="the HDF5 file to write; if it was made from another folder, half of the photos must be the "
        "same, as when that folder was moved or copied (default: features/DATA.h5)")  # fmt: skip
    add_config_options(result)
    add("--views", metavar="LIST",
        help="also cache variants of every photo, in stores of their own (NAME+VIEW.h5): flip, "
        "crops:N, or flip,crops:N (default: none)")  # fmt: skip
    add("--engine", default="auto", choices=(*ENGINE_CHOICES, "ray"),
        help="what computes the features; auto is openvino where it works, else keras; ray is "
        "either, on the nodes of a cluster")  # fmt: skip
    add("--address", metavar="A", default="auto",
        help="of the cluster: auto for the cluster that this machine is in, its head as HOST:PORT, or "
        "local for this machine alone")  # fmt: skip
    add("--actors", metavar="N", type=common.positive,
        help="how many processes compute on a cluster; a cluster that grows adds nodes for them "
        "(default: as many as there is room for)")  # fmt: skip
    add("--workers", metavar="N", type=common.workers, default=os.cpu_count() or 2,
        help="threads that read and decode photos")  # fmt: skip
    add("--trust-mtime", action="store_true", default=False,
        help="take files whose path, size and time are the same for unchanged, unread")  # fmt: skip
    add("--preview", metavar="FILE", type=Path, nargs="?", const=True,
        help="write a page that shows these photos and what is wrong with them, and extract nothing; name "
        "it after DATA (default: no; without FILE: reports/DATA-preview.html)")  # fmt: skip
    return result


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide a feature, which `config_of` reads."""
    add = parser.add_argument
    add("--weights", metavar="W", default="imagenet",
        help="imagenet (fetched once), random, or the path of a .h5 weights file")  # fmt: skip
    add("--backbone", metavar="B", default="xception",
        help=f"the pretrained network: {', '.join(BACKBONES)}; or an ONNX file, or a folder of a model hub "
        f"with model.onnx and preprocessor_config.json (beside NAME.onnx, NAME.json)")  # fmt: skip
    add("--resize", metavar="R",
        help="how a photo becomes a square: stretch, crop, pad, or cropN, its shorter side resized to N and "
        "the middle cut out; crop256-bicubic and the like resample otherwise than bilinear "
        "(default: the hub folder's, else stretch)")  # fmt: skip
    add("--size", metavar="N", type=common.positive,
        help="input size in pixels, from 71 for xception; smaller is faster "
        "(default: the backbone's own)")  # fmt: skip
    add("--precision", default="fp32", choices=PRECISIONS,
        help="arithmetic of the network: int8 is about three times as fast as fp32 on CPUs "
        "with VNNI, less than twice on others")  # fmt: skip


def config_of(arguments: argparse.Namespace) -> FeatureConfig:
    """Return what the options of `add_config_options` say; what they leave open, extraction fills in."""
    return FeatureConfig(
        backbone=arguments.backbone, weights=arguments.weights, size=arguments.size or 0,
        resize=arguments.resize or "", precision=arguments.precision,
    )  # fmt: skip


def _check_cluster(arguments: argparse.Namespace) -> None:
    """Refuse what is for a cluster without one.

    Raises
    ------
    BreedsError
        If there is such an option, or there is one and photos are only looked at.
    """
    options = ("address", "actors")
    usual = parser()
    given = [name for name in options if getattr(arguments, name) != usual.get_default(name)]
    if given and arguments.engine != "ray":
        raise BreedsError(f"--{given[0].replace('_', '-')} is for a cluster; add --engine ray.")
    if arguments.engine == "ray" and arguments.preview:
        raise BreedsError("--preview looks at photos on this machine; leave out --engine ray.")


@contextmanager
def _cluster(arguments: argparse.Namespace) -> Iterator[RayPipeline | None]:
    """Join the cluster that is asked for while the block runs; None if none is."""
    if arguments.engine != "ray":
        yield None
        return
    from breeds.backbones.ray import RayPipeline

    with RayPipeline(arguments.address, arguments.actors) as cluster:
        yield cluster


def main() -> int:
    """Run the extraction, or the preview, and say what was done."""
    arguments = parser().parse_args()
    _check_cluster(arguments)
    selection = Selection.of(arguments)
    if arguments.preview:
        return show_preview(arguments, selection)
    if arguments.store:
        common.check_no_view(arguments.store)
    codes = extract_views(arguments, selection)
    say(f"next: {command('train')}")
    return max(codes)


def extract_views(arguments: argparse.Namespace, selection: Selection) -> list[int]:
    """Extract the photos as they are and their views, and say what was done; return the exit code of each."""
    from breeds.extraction import extract
    from breeds.photos import ORIGINAL, parse_views

    store = arguments.store or common.FEATURES / f"{common.name_of(arguments.data)}.h5"
    config = config_of(arguments)
    engine = "openvino" if arguments.engine == "ray" else arguments.engine
    views = [ORIGINAL, *(parse_views(arguments.views) if arguments.views else [])]
    with _cluster(arguments) as cluster:
        return [
            show(
                extract(
                    selection,
                    store if view == ORIGINAL else view_store(store, view),
                    replace(config, view=view),
                    arguments.workers,
                    arguments.trust_mtime,
                    plain=store,
                    cluster=cluster,
                    engine=engine,
                )
            )
            for view in views
        ]


def show_preview(arguments: argparse.Namespace, selection: Selection) -> int:
    """Write the page, say where it is and what comes next; 1 if photos cannot be read."""
    from breeds.report.preview import preview

    if arguments.trust_mtime:
        raise BreedsError("--trust-mtime leaves photos unread and --preview reads each; use one of the two.")
    page = arguments.preview
    if page is True:
        page = common.REPORTS / f"{common.name_of(arguments.data)}-preview.html"
    following = next_command(arguments)
    started = time.perf_counter()
    seen, found = preview(
        selection, page, config_of(arguments), arguments.views, following, arguments.workers
    )
    for row, reason in seen.bad.items():
        say(f"cannot be read: {seen.path[row]}: {reason}", file=sys.stderr)
    conflicts, classes = len(found.conflicts), len(found.labelled)
    before = f"remove one of each pair with two answers ({conflicts}), then " if conflicts else ""
    if len(seen.bad) == len(seen):
        before, following = "", "none of them can be read, so name other photos"
    say(
        f"{page}: {len(seen)} photos, {classes} class{'' if classes == 1 else 'es'}, looked at in "
        f"{time.perf_counter() - started:.1f} s; next: {before}{following}"
    )
    return 1 if seen.bad else 0


def next_command(arguments: argparse.Namespace) -> str:
    """Return the command that extracts what the preview showed."""
    given, usual = [], parser()
    for name, value in vars(arguments).items():
        if name not in ("data", "preview") and value != usual.get_default(name):
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            option = f"--{name.replace('_', '-')}"
            given += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return f"{command('extract')} {shlex.join([str(arguments.data), *given])}"


def show(summary: Summary) -> int:
    """Say what an extraction did; 1 if photos were set aside."""
    for shard in summary.damaged:
        say(f"damaged, set aside and computed again: {shard}", file=sys.stderr)
    for path, reason in summary.quarantined:
        say(f"quarantined {path}: {reason}", file=sys.stderr)
    extra = [*summary.notes, *([f"{summary.duplicates} duplicates"] if summary.duplicates else [])]
    say(
        f"{summary.photos} photos = {summary.features} features ({summary.new} new, "
        f"{summary.features - summary.new} reused) + {len(summary.quarantined)} quarantined"
        f"{''.join(f'; {text}' for text in extra)}; {summary.seconds:.1f} s",
        f"config: {summary.config}",
        *on_cluster(summary),
        f"{'wrote' if summary.changed else 'nothing to change in'} {summary.store}",
    )
    return 1 if summary.quarantined else 0


def on_cluster(summary: Summary) -> list[str]:
    """Say how fast a cluster was, and what each node did."""
    if not summary.nodes:
        return []
    nodes = ", ".join(f"{name} {photos}" for name, photos in sorted(summary.nodes.items()))
    return [f"cluster: {summary.rate:.1f} photos/s; photos per node: {nodes}"]
