"""Extraction, evaluation and prediction for other programs: what `breeds.__all__` offers of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from breeds.errors import BreedsError, PhotoError, attempt
from breeds.features import Store
from breeds.heads.model import Model
from breeds.machine import cores
from breeds.photos import Photo, parse_views, photo_of
from breeds.photos.inputs import photos_in
from breeds.photos.photo import RejectedPhoto
from breeds.prediction import Predictor
from breeds.prediction import predict as answer_photos
from breeds.report.answers import as_table
from breeds.selection import Selection, as_source

if TYPE_CHECKING:
    import pandas as pd

PathLike: TypeAlias = "str | os.PathLike[str]"
load = Model.load


def extract(
    data: PathLike,
    store: PathLike,
    *,
    labels: PathLike | None = None,
    top: int | None = None,
    classes: Sequence[str] | None = None,
    min_photos: int = 1,
    weights: str = "imagenet",
    backbone: PathLike = "xception",
    view: str = "original",
    resize: str | None = None,
    size: int | None = None,
    precision: str = "fp32",
    engine: str = "auto",
    workers: int | None = None,
    trust_mtime: bool = False,
) -> Store:
    """Bring a store up to date with the photos of a folder; only what is missing is computed.

    What ``extract_features.py`` does, with the same options. A killed call loses no more than ten seconds'
    work, and the next one goes on from there.

    Parameters
    ----------
    data
        Folder of photos, a subfolder for each class, or a CSV manifest of columns path,label[,split]; tars or
        Parquet files of photos; or an address such as ``s3://bucket/photos``.
    store
        The HDF5 file to write; what is committed meanwhile lies in ``NAME.journal`` beside it.
    labels
        CSV file of labels, where they are not the subfolders' names.
    top, classes, min_photos
        Keep the classes with the most photos, or these; leave out classes with fewer photos.
    weights
        ``imagenet`` (fetched once), ``random``, or the path of a ``.h5`` file.
    backbone, view, resize, size, precision
        The network (also the path of an ONNX file, or of a hub's folder with one), which view of the photos,
        how a photo becomes a square and its side in pixels (None: the network's own), and the arithmetic.
    engine
        ``openvino``, ``keras`` or ``auto``: OpenVINO where it works, else Keras. Keras loads TensorFlow into
        this process, which prints and sets what it likes.
    workers
        Threads that read and decode; None for as many as there are cores.
    trust_mtime
        Take files of the same path, size and time for unchanged, unread.

    Returns
    -------
    Store
        The store as it is now. Photos that could not be used are in `Store.rejected`.

    Raises
    ------
    BreedsError
        If nothing can be done, another process writes the store, or it is another config's or data set's.

    Examples
    --------
    >>> import breeds
    >>> store = breeds.extract("photos", "features/small.h5", weights="random", size=96)
    >>> len(store), store.rejected
    (30, [])
    """
    from breeds.config import FeatureConfig
    from breeds.extraction import extract as run

    source = as_source(os.fspath(data))
    selection = Selection(source, None if labels is None else Path(labels), top, classes, min_photos)
    config = FeatureConfig(
        backbone=os.fspath(backbone), weights=str(weights), size=size or 0, resize=resize or "",
        precision=precision, view=view,
    )  # fmt: skip
    run(selection, Path(store), config, workers or cores(), trust_mtime, engine=engine)
    return Store(store)


def evaluate(model: Model | PathLike, store: Store | PathLike) -> dict[str, Any]:
    """Measure a model on the labelled photos of a store that its training has not seen.

    Returns
    -------
    dict
        The numbers of ``evaluate.py``'s report, plain JSON values, as ``reports/README.md`` describes them:
        shares from 0 to 1 with intervals of 95 %, log loss in nats, counts of photos.

    Raises
    ------
    BreedsError
        If the configs differ, the store has a class that the model does not know, or no photo is left.

    Examples
    --------
    >>> import breeds
    >>> report = breeds.evaluate("models/photos.safetensors", "features/photos.h5")
    >>> report["n_test"], 0 <= report["accuracy"] <= 1, len(report["accuracy_interval"])
    (5, True, 2)
    """
    from breeds.evaluation import evaluate as run

    return run(_opened(store), _loaded(model))


def predict(
    model: Model | PathLike | Predictor,
    photos: Iterable[Any],
    *,
    top_k: int = 1,
    unknown: bool = True,
    views: str = "",
    engine: str = "auto",
    weights: str | None = None,
    workers: int | None = None,
    cache: PathLike | None = None,
) -> pd.DataFrame:
    """Answer for every photo: the values of ``predict.py --format json``, a row each, in the order given.

    Each call opens the network anew, which takes longer than a photo: ask for many photos at once, or with a
    `Predictor`, which keeps it open.

    Parameters
    ----------
    model
        The model, its file, or a `Predictor`.
    photos
        Paths, the bytes of photos' files, Pillow images or arrays, uint8 (height, width[, bands]), mixed
        as they come. An image is turned upright by its EXIF and seen as its file would be. A file is
        known by the SHA-256 of its bytes, an image or array by its size and RGB pixels. Photos are not
        fetched from the web. A tar, a Parquet file or a folder of object storage
        (``s3://bucket/photos``) stands for all its photos, a row each.
    top_k
        How many breeds to name.
    unknown
        Answer ``unknown`` for photos that seem to be of none of the breeds.
    views
        Average over these views of each photo too: ``flip``, ``crops:N``, or both with a comma.
    engine
        As in `breeds.extract`.
    weights
        Where the network's weights are, if they are not where they were at training.
    workers
        Threads that read and decode; None for as many as there are cores.
    cache
        Folder of a file, features.sqlite, that keeps features for the next time; None to write nothing.

    Returns
    -------
    pandas.DataFrame
        ``path`` (text, None for photos in memory); ``breed``, the answer; ``probability``, float64 from
        0 to 1, and ``guess``, of the likeliest breed, also where the answer is ``unknown``; ``margin``,
        by how much it is likelier than the second; with a ``top_k`` ``breed_2``, ``probability_2`` and so
        on; ``error`` (text, None where there is none). A photo that cannot be read or decoded is a row
        with its error and no answer.

    Raises
    ------
    BreedsError
        If the network's weights are not there, or an option is wrong; never for a bad photo.

    Examples
    --------
    >>> import breeds, pathlib
    >>> photo = sorted(pathlib.Path("photos").rglob("*.jpg"))[0]
    >>> table = breeds.predict("models/photos.safetensors", [photo, photo.read_bytes(), b"no photo"])
    >>> bool(table.breed[0] == table.breed[1]), table.error[2][:26]
    (True, 'not a photo of a known for')
    """
    check_several(photos)
    if not isinstance(top_k, int) or top_k < 1:
        raise BreedsError(f"top_k={top_k!r}: give a whole number from 1 up.")
    asked = chain.from_iterable(map(_asked, photos))
    if isinstance(model, Predictor):
        if views or engine != "auto" or (weights, workers, cache) != (None, None, None):
            raise BreedsError(
                "views, engine, weights, workers and cache are the Predictor's: name them there."
            )
        opened, answers = model.model, model.answers(asked)
    else:
        opened = _loaded(model)
        answers = answer_photos(
            opened, asked, weights, None if cache is None else Path(cache),
            workers=workers, engine=engine, views=parse_views(views) if views else (),
        )  # fmt: skip
    named = (answer if unknown else replace(answer, unknown=False) for answer in answers)
    return as_table(named, opened.classes, top_k)


def check_several(photos: Any) -> None:
    """Refuse a single photo where a list of photos belongs.

    Raises
    ------
    BreedsError
        If it is one, or nothing that photos could be in.
    """
    if hasattr(photos, "tocsr"):
        raise BreedsError("A sparse array holds numbers, and no photos; give photos in a list.")
    single = isinstance(photos, str | bytes | os.PathLike) or not isinstance(photos, Iterable)
    if single or hasattr(photos, "getbands"):
        raise BreedsError(f"Give photos in a list, also a single one: [photo], not {type(photos).__name__}.")


def listed(X: Any) -> list[Any]:
    """Return photos, as they come to a transformer, one by one.

    Raises
    ------
    BreedsError
        If it is a single photo, or a table of more than one column.
    """
    check_several(X)
    if hasattr(X, "to_numpy"):  # of pandas, polars and their like
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.ndim == 2 and (X.shape[1] == 1 or X.dtype == object):
        if X.shape[1] != 1:
            raise BreedsError(f"X has {X.shape[1]} columns; give the one with the photos.")
        X = X[:, 0]
    return list(X)


def _opened(store: Store | PathLike) -> Store:
    return store if isinstance(store, Store) else Store(store)


def _loaded(model: Model | PathLike) -> Model:
    return model if isinstance(model, Model) else Model.load(model)


def _asked(value: Any) -> Iterable[Photo]:
    """Return a photo, or all of a source's."""
    name = os.fsdecode(value) if isinstance(value, str | os.PathLike) else ""
    source = photos_in(name) if name and "\0" not in name else None
    if source is not None:
        return source
    photo = attempt(photo_of, value)
    return [RejectedPhoto(name, str(photo)) if isinstance(photo, PhotoError) else photo]
