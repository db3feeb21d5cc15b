"""The features of photos, to look at and to train on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from breeds import features as files

if TYPE_CHECKING:
    import pandas as pd


class Store:
    """The features of photos and what is known of them, as `breeds.extract` has written them.

    Parameters
    ----------
    *paths
        The store's file, such as ``features/photos.h5``. Of several files of the same photos, by different
        networks, the features are put beside each other; labels are those of the first.
    corrected
        Take labels as people have corrected them, in ``NAME.corrections.csv`` beside the file, if it is
        there; else as they came.

    Raises
    ------
    BreedsError
        If a file is missing, no store, or damaged.

    Examples
    --------
    >>> import breeds
    >>> store = breeds.Store("features/photos.h5")
    >>> len(store), store.features().shape, store.features().dtype
    (30, (30, 2048), dtype('float32'))
    >>> store.to_pandas()["label"].nunique()
    5
    """

    def __init__(self, *paths: str | os.PathLike[str], corrected: bool = True) -> None:
        if not paths:
            raise TypeError("name the store's file")
        self._store = files.Store.open_beside([Path(path) for path in paths], corrected=corrected)

    def __len__(self) -> int:
        return len(self._store.table)

    def __repr__(self) -> str:
        return f"<breeds.Store {str(self.path)!r}: {len(self)} photos, {self.config}>"

    @property
    def path(self) -> Path:
        """The store's file; of several, the first."""
        return self._store.path

    @property
    def config(self) -> str:
        """What decides the features' values, in one line; " + " between several.

        Examples
        --------
        >>> import breeds
        >>> breeds.Store("features/photos.h5").config[:31]
        'xception 96×96 stretch fp32, we'
        """
        return " + ".join(str(config) for config, _ in self._store.parts())

    @property
    def quarantined(self) -> list[tuple[str, str]]:
        """Path and reason of each photo that was asked for and could not be used.

        Photos asked for = ``len(store)`` + ``len(store.quarantined)``, always.

        Examples
        --------
        >>> import breeds
        >>> breeds.Store("features/photos.h5").quarantined
        []
        """
        return list(self._store.table.quarantine)

    def features(self) -> NDArray[np.float32]:
        """Return the features, float32 (photos, width), in the rows' order; without unit.

        Raises
        ------
        BreedsError
            If the file was changed or damaged since it was written, or replaced since it was opened.

        Examples
        --------
        >>> import breeds
        >>> bool((breeds.Store("features/photos.h5").features() >= 0).all())  # Xception ends in a rectifier
        True
        """
        return self._store.features()

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each photo, in the order of their paths.

        Returns
        -------
        pandas.DataFrame
            ``key``, the SHA-256 of the photo's bytes in 64 hexadecimal digits; ``path``, from the folder
            that was extracted; ``label``, "" where there is none or a correction leaves the photo out;
            ``split``, the part that the data names (train, val, test), mostly "": all text (object). Then
            the features, float32, in columns ``feature_0`` and so on. The index counts from 0.

        Raises
        ------
        BreedsError
            As `features` does.

        Examples
        --------
        >>> import breeds
        >>> table = breeds.Store("features/photos.h5").to_pandas()
        >>> table.shape, list(table.columns[:5])
        ((30, 2052), ['key', 'path', 'label', 'split', 'feature_0'])
        """
        import pandas as pd

        features, table = self.features(), self._store.corrected
        about = pd.DataFrame(
            {name: list(getattr(table, name)) for name in ("key", "path", "label", "split")}, dtype=object
        )  # names of files may be no Unicode, which pandas's own text cannot hold
        numbers = pd.DataFrame(features, columns=[f"feature_{i}" for i in range(features.shape[1])])
        return pd.concat([about, numbers], axis=1)
