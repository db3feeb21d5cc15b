"""A trained model: what breed is it, for photos that another program has."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from breeds.backbones import Engine
from breeds.backbones.processes import cores
from breeds.errors import BreedsError, PhotoError
from breeds.heads import model as heads
from breeds.heads.backbone import open_network
from breeds.library.opened import Opened
from breeds.library.photos import check_several
from breeds.outputs import MODEL, check_output
from breeds.photos import parse_views
from breeds.photos.held import photo_of
from breeds.prediction import predict
from breeds.prediction.remote import Asked
from breeds.prediction.streams import asked_of, find_streamed
from breeds.report.answers import as_table
from breeds.report.modelcard import card_path, write_card
from breeds.text import mention

if TYPE_CHECKING:
    import pandas as pd

    from breeds.config import FeatureConfig


class Model:
    """A trained model, read from its file; nothing in it is run.

    It keeps its network open after the first photo (some hundred megabytes), and answers one call at a time;
    a pickled copy opens its own.

    Parameters
    ----------
    path
        The file, such as ``models/photos.safetensors``.

    Raises
    ------
    BreedsError
        If it is missing, no model of Breeds, or damaged.

    Examples
    --------
    >>> import breeds
    >>> model = breeds.Model("models/photos.safetensors")
    >>> len(model.classes)
    5
    """

    _model: heads.Model

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._take(heads.load_model(Path(path)))

    @classmethod
    def _of(cls, model: heads.Model) -> Model:
        made = cls.__new__(cls)
        made._take(model)
        return made

    def _take(self, model: heads.Model) -> None:
        self._model = model
        self._opened = Opened()

    def __repr__(self) -> str:
        return f"<breeds.Model: {self.kind}, {len(self.classes)} classes, {self.config}>"

    @property
    def classes(self) -> list[str]:
        """The breeds that it tells apart, in the order of the columns of `probabilities`."""
        return list(self._model.classes)

    @property
    def kind(self) -> str:
        """``logistic`` or ``dense``."""
        return self._model.kind

    @property
    def config(self) -> str:
        """What decides the features that it takes, in one line, as `breeds.Store.config`."""
        return " + ".join(str(config) for config, _ in self._model.parts)

    @property
    def record(self) -> dict[str, Any]:
        """How it was trained: counts, C, seed, versions and so on; plain JSON values."""
        return dict(self._model.record)

    def predict(
        self,
        photos: Iterable[Any],
        *,
        top_k: int = 1,
        unknown: bool = True,
        views: str = "",
        engine: str = "auto",
        weights: str | None = None,
        workers: int | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> pd.DataFrame:
        """Answer for every photo: the values of ``predict.py --format json``, a row each, in the order given.

        Parameters
        ----------
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
        >>> model = breeds.Model("models/photos.safetensors")
        >>> photo = sorted(pathlib.Path("photos").rglob("*.jpg"))[0]
        >>> table = model.predict([photo, photo.read_bytes(), b"no photo"])
        >>> bool(table.breed[0] == table.breed[1]), table.error[2][:26]
        (True, 'not a photo of a known for')
        """
        check_several(photos)
        if not isinstance(top_k, int) or top_k < 1:
            raise BreedsError(f"top_k={top_k!r}: give a whole number from 1 up.")
        chosen = None if cache is None else Path(cache)
        asked = chain.from_iterable(map(_asked, photos))
        with self._opened.turn:
            answers = predict(
                self._model, asked, weights, chosen, workers or cores(), engine,
                parse_views(views) if views else (), opener=self._open,
            )  # fmt: skip
            named = (answer if unknown else replace(answer, unknown=False) for answer in answers)
            return as_table(named, self._model.classes, top_k)

    def _open(
        self,
        model: heads.Model,
        part: tuple[FeatureConfig, str],
        weights: str | None,
        engine: str,
        single: bool,
    ) -> Engine:
        opener = partial(open_network, model, part, weights, engine, single)
        return self._opened.get((part[0].digest, weights, engine, single), opener)

    def probabilities(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of features of its config, float64 (n, classes), rows adding up to 1.

        Parameters
        ----------
        features
            As `breeds.Store.features` and `breeds.BottleneckFeatures` give them, (n, width).

        Raises
        ------
        BreedsError
            If they are of another width.

        Examples
        --------
        >>> import breeds
        >>> model = breeds.Model("models/photos.safetensors")
        >>> model.probabilities(breeds.Store("features/photos.h5").features()).shape
        (30, 5)
        """
        return self._model.probabilities(np.asarray(features, dtype=np.float32))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model's file, whole or not at all; the command line and `breeds.load` read it.

        A model card that is beside it is written anew, but one that a person has edited stays.

        Raises
        ------
        BreedsError
            If it cannot be written, or something else than a model is there.

        Examples
        --------
        >>> import breeds
        >>> breeds.Model("models/photos.safetensors").save("models/copy.safetensors")
        """
        check_output(Path(path), MODEL)
        digest = heads.save_model(self._model, Path(path))
        if os.path.lexists(card_path(Path(path))):  # it would be of the model that was there
            kept = write_card(self._model, Path(path), digest)
            if kept:
                mention(kept)


def _asked(photo: Any) -> Iterable[Asked | None]:
    """Return a photo, or all of a source's, as `breeds.prediction.streams` gives them."""
    name = os.fsdecode(photo) if isinstance(photo, str | os.PathLike) else ""
    source = find_streamed(name) if name and "\0" not in name else None
    if source is not None:
        return asked_of(source)
    try:
        return [Asked(name, photo_of(photo))]
    except PhotoError as error:
        return [Asked(name, error)]
