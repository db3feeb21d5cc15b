"""The four verbs, and reading a model, for other programs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from breeds.backbones.processes import cores
from breeds.features import Store
from breeds.library.model import Model
from breeds.places import as_source

if TYPE_CHECKING:
    import pandas as pd

PathLike: TypeAlias = "str | os.PathLike[str]"


def load(path: PathLike) -> Model:
    """Read a model's file; nothing in it is run.

    Raises
    ------
    BreedsError
        If it is missing, no model of Breeds, or damaged.

    Examples
    --------
    >>> import breeds
    >>> breeds.load("models/photos.safetensors").kind
    'logistic'
    """
    return Model(path)


def extract(
    data: PathLike,
    store: PathLike,
    *,
    labels: PathLike | None = None,
    top: int | None = None,
    classes: Sequence[str] | None = None,
    weights: str = "imagenet",
    backbone: PathLike = "xception",
    view: str = "original",
    resize: str | None = None,
    size: int | None = None,
    precision: str = "fp32",
    engine: str = "auto",
    workers: int | None = None,
    trust_mtime: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: str | None = None,
    pool: str | None = None,
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
    top, classes
        Keep the classes with the most photos, or these.
    weights
        ``imagenet`` (fetched once), ``random``, or the path of a ``.h5`` file.
    backbone, view, resize, size, precision
        The network (also the path of an ONNX file, or of a hub's folder with one), which view of the photos,
        how a photo becomes a square and its side in pixels (None: the network's own), and the arithmetic.
    engine
        ``openvino``, ``keras`` or ``auto``, which is ``keras`` beside a GPU. That loads TensorFlow into this
        process, which prints and sets what it likes.
    workers
        Threads that read and decode; None for as many as there are cores.
    trust_mtime
        Take files of the same path, size and time for unchanged, unread.
    mean, std, layout, pool
        Of an ONNX network: three numbers each, for pixels from 0 to 1; ``nchw`` or ``nhwc``; ``none``,
        ``avg`` or ``cls``. None: as its folder or its file says.

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
    from breeds.extraction import Asked, Selection
    from breeds.extraction import extract as run

    selection = Selection(as_source(os.fspath(data)), None if labels is None else Path(labels), top, classes)
    asked = Asked(
        str(weights),
        os.fspath(backbone),
        view,
        resize,
        size,
        precision,
        engine,
        mean,
        std,
        layout,
        pool,
    )
    run(selection, Path(store), asked, workers or cores(), trust_mtime)
    return Store(store)


def train(
    store: Store | PathLike,
    *,
    head: str = "logistic",
    C: float | None = None,
    seed: int = 0,
    val: float = 0.0,
    balanced: bool = False,
    keep: float = 0.95,
    views: Sequence[Store | PathLike] = (),
    memory: int | None = None,
) -> Model:
    """Train a head on a store's training part, as `breeds.training.train`, which describes the options.

    Examples
    --------
    >>> import breeds
    >>> model = breeds.train("features/photos.h5", C=0.01)
    >>> model.record["n_train"], model.record["n_test"]
    (25, 5)
    """
    from breeds.heads.kinds import TrainingSettings
    from breeds.training import train_head

    settings = TrainingSettings(head, C, seed, val, balanced, keep, memory)
    return Model._of(train_head(_opened(store), settings, [_opened(view) for view in views]))


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

    return run(_opened(store), _loaded(model)._model)


def predict(
    model: Model | PathLike,
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
    """Answer for every photo as `Model.predict` does, which describes what goes in and comes out.

    Who asks more than once loads the model first: it keeps its network open.

    Examples
    --------
    >>> import breeds
    >>> breeds.predict("models/photos.safetensors", ["gone.jpg"])[["path", "error"]].values.tolist()
    [['gone.jpg', 'no such file']]
    """
    return _loaded(model).predict(
        photos, top_k=top_k, unknown=unknown, views=views, engine=engine, weights=weights, workers=workers,
        cache=cache,
    )  # fmt: skip


def _opened(store: Store | PathLike) -> Store:
    return store if isinstance(store, Store) else Store(store)


def _loaded(model: Model | PathLike) -> Model:
    return model if isinstance(model, Model) else Model(model)
