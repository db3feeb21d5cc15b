"""Photos to features: what is missing, in which order, beside the engine; bad photos set aside."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np

from breeds.engines.backbones import BACKBONES, LARGEST_SIZE, XCEPTION
from breeds.engines.brought.file import is_onnx
from breeds.engines.brought.folder import Options
from breeds.engines.brought.settle import BACKBONE, settle
from breeds.engines.choose import open_engine, recipe_precision
from breeds.engines.cluster.features import ClusterPipeline
from breeds.engines.cluster.pool import Cluster
from breeds.engines.convert import converted_width
from breeds.engines.pipeline import Ahead, Pipeline, run_ahead
from breeds.engines.weights import Weights, get_weights
from breeds.errors import BreedsError, GoneError, PhotoError
from breeds.files import check_writable, hold
from breeds.photos import ORIGINAL, Listing, Photo, find_photos, fits, key_of, read
from breeds.photos.resize import RULES
from breeds.photos.sources import Streamed, streamed
from breeds.photos.tars import Place
from breeds.places import is_address, shown
from breeds.progress import Progress, progress
from breeds.recipe import DTYPES, Recipe
from breeds.store import (
    FeatureIndex,
    ShardWriter,
    Store,
    Table,
    assemble,
    check_recipe,
    lock_file,
    refer,
    shard_folder,
)
from breeds.store.calibration import calibrated
from breeds.store.columns import PACKED, Keys, Names, Rows, Texts
from breeds.store.shards import SHARD_ROWS
from breeds.streamed import identify_streamed

#: Says of a row of the table where its photo is.
PlaceOf = Callable[[int], str | Place]

#: A file's size in bytes and its time, in nanoseconds.
Stamp = tuple[int, int]

#: A store takes photos of another folder than its own if so large a share of the smaller set is common.
SAME_PHOTOS = 0.5


@dataclass(frozen=True)
class Selection:
    """Which photos: `data`, `labels`, `top` and `classes` as in `breeds.photos.find_photos`.

    `data` may be what `breeds.photos.sources.streamed` takes, too.
    """

    data: Path | str
    labels: Path | None = None
    top: int | None = None
    classes: Sequence[str] | None = None

    def find(self) -> Listing:
        """List the photos.

        Raises
        ------
        BreedsError
            If there are none, the labels do not fit them, `top` and `classes` are both given, or they are
            read as a stream.
        """
        self._check_classes()
        if streamed(self.data) is not None:
            raise BreedsError(
                f"The photos of {self.source} are no files in a folder here; name such a folder."
            )
        return find_photos(Path(self.data), self.labels, self.top, self.classes)

    def streamed(self) -> Streamed | None:
        """Return the photos that are read as a stream, or None if they are files in a folder here.

        Raises
        ------
        BreedsError
            If they are not there, or have labels in themselves and others are given.
        """
        found = streamed(self.data)
        if found is not None:
            self._check_classes()
            if self.labels is not None:
                raise BreedsError(f"--labels is for folders here; {self.source} says its labels itself.")
        return found

    @property
    def source(self) -> str:
        """What `data` is called, to be shown."""
        return shown(str(self.data)) if is_address(str(self.data)) else str(self.data)

    def _check_classes(self) -> None:
        if self.top is not None and self.classes is not None:
            raise BreedsError("--top and --classes both choose the classes; name one of the two.")


@dataclass(frozen=True)
class Asked:
    """What a user decides of the recipe, and what is to compute it.

    Parameters
    ----------
    weights
        ``imagenet``, ``random`` or a file's path.
    backbone
        A name in `breeds.engines.backbones.BACKBONES`, or the path of an ONNX file or of a folder with one.
    view
        Which variant of the photos to extract, as in `breeds.photos.decode`.
    resize
        How a photo becomes a square, a rule of `breeds.photos.resize`; None is the folder's, or ``stretch``.
    size
        Width and height of the network's input; None is the backbone's own.
    precision, engine
        One of `breeds.engines.choose.PRECISIONS` and one of `breeds.engines.choose.ENGINES`.
    mean, std, layout, pool
        How an ONNX network is read (`breeds.recipe.Reading`); None is as its folder says.
    dtype
        What features are kept as, one of `breeds.recipe.DTYPES`.
    """

    weights: str = "imagenet"
    backbone: str = XCEPTION.name
    view: str = ORIGINAL
    resize: str | None = None
    size: int | None = None
    precision: str = "fp32"
    engine: str = "auto"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    layout: str | None = None
    pool: str | None = None
    dtype: str = DTYPES[0]

    def find(self) -> tuple[Recipe, Weights]:
        """Return the recipe, still without the network of int8, and the weights.

        Raises
        ------
        BreedsError
            If the weights cannot be had, the backbone does not take this size, or the engine this precision.
        """
        if self._brought():
            return self._find_brought()
        size, resize = self.square()
        weights = get_weights(self.weights, BACKBONES[self.backbone])
        precision = recipe_precision(self.engine, self.precision)
        recipe = Recipe(
            self.backbone,
            weights.name,
            weights.sha256,
            size,
            resize,
            precision,
            view=self.view,
            dtype=self.dtype,
        )
        return recipe, weights

    def _find_brought(self) -> tuple[Recipe, Weights]:
        """Return recipe and weights of an ONNX network."""
        if self.engine == "keras":
            raise BreedsError("--engine keras: an ONNX network is run by OpenVINO; leave it out.")
        if self.weights != "imagenet":
            raise BreedsError(
                f"--weights {self.weights}: an ONNX network has its weights in it; leave it out."
            )
        precision = recipe_precision("openvino", self.precision)
        found = settle(self.backbone, self._options())
        weights = found.weights
        recipe = Recipe(
            BACKBONE, weights.name, weights.sha256, found.size, found.resize, precision, view=self.view,
            reading=found.reading, dtype=self.dtype,
        )  # fmt: skip
        width = converted_width(recipe, lambda: weights)
        return replace(recipe, reading=replace(found.reading, width=width)), weights

    def _options(self) -> Options:
        return Options(self.size, self.resize, self.mean, self.std, self.layout, self.pool)

    def _brought(self) -> bool:
        """Say whether the backbone is an ONNX network, and refuse what is neither that nor of Keras's."""
        if self.backbone not in BACKBONES:
            if not is_onnx(self.backbone):
                raise BreedsError(
                    f"--backbone {self.backbone}: it is one of {', '.join(BACKBONES)}, an ONNX file (.onnx), "
                    f"or a folder with model.onnx."
                )
            return True
        for name in ("mean", "std", "layout", "pool"):
            if getattr(self, name) is not None:
                raise BreedsError(
                    f"--{name} is for networks as ONNX files, and {self.backbone} has its own; leave it out."
                )
        return False

    def square(self) -> tuple[int, str]:
        """Return the side of the network's input, in pixels, and the resize rule.

        Raises
        ------
        BreedsError
            If the backbone does not take what was asked for.
        """
        if self._brought():
            found = settle(self.backbone, self._options())
            return found.size, found.resize
        backbone = BACKBONES[self.backbone]
        size, resize = self.size or backbone.size, self.resize or "stretch"
        if not backbone.smallest <= size <= LARGEST_SIZE:
            raise BreedsError(
                f"--size {size}: {backbone.name} takes {backbone.smallest} to {LARGEST_SIZE} pixels."
            )
        if not fits(resize, size):
            raise BreedsError(f"--resize {resize}: it is {RULES}, with N from {size} up.")
        return size, resize


@dataclass(frozen=True)
class Summary:
    """What an extraction did: ``photos == features + len(quarantined)``, always.

    `damaged` are shards that were set aside, `mended` says what was wrong with the store as it was: nothing
    was taken from it then. `nodes` says of a cluster's nodes how many photos each has computed, and `rate`
    how many they all did in a second.
    """

    store: Path
    recipe: Recipe
    photos: int
    features: int
    new: int
    changed: bool
    duplicates: int
    ignored: int
    missing: int
    quarantined: list[tuple[str, str]]
    damaged: list[Path]
    mended: str
    seconds: float
    nodes: Mapping[str, int] = field(default_factory=dict)
    rate: float = 0.0


def extract(
    selection: Selection,
    store: Path,
    asked: Asked,
    workers: int = 2,
    trust_mtime: bool = False,
    plain: Path | None = None,
    in_one: bool | None = None,
    cluster: Cluster | None = None,
) -> Summary:
    """Bring the store up to date with the photos selected; only what is missing is computed.

    Memory holds the pixels and features under way, and for each photo a few hundred bytes: its line in
    the table as it was and as it will be (100 each), where its feature is (40), and its listing (150);
    all in all the process grew by 0.6 kB a photo (``benchmarks/memory.py``).

    Parameters
    ----------
    selection, asked
        Which photos, and by which recipe.
    store
        The HDF5 file to write; its shards go to the folder ``NAME.shards`` beside it.
    workers
        Threads that read and decode, or processes beside a GPU.
    trust_mtime
        Take a file whose path, size and time have not changed for unchanged, without reading it.
    plain
        For a view: the store of the photos as they are, whose int8 network it shares.
    in_one
        Put all features together in the store's file, or leave them in its shards; None leaves a store as it
        is, and a new one is put together.
    cluster
        Where photos are read and computed instead of here; shards and store are written here all the same.

    Raises
    ------
    BreedsError
        If a user's mistake leaves nothing to do, another process writes the store, or the store is
        another data set's or recipe's.

    Examples
    --------
    >>> photos, store = Selection(Path("photos")), Path("features/photos.h5")
    >>> summary = extract(photos, store, Asked(size=224))  # doctest: +SKIP
    """
    started = time.perf_counter()
    check_writable(store)
    listing = selection.streamed() or selection.find()
    recipe, weights = asked.find()
    old = _open_old(store, recipe)
    table, place = _table(listing, weights, old if trust_mtime else None, workers, selection, cluster)
    photos = len(table) + len(table.quarantine)
    del old  # it is read again under the lock

    with hold(lock_file(store), str(store)):
        old = _open_old(store, recipe)  # another run may have just finished
        if old is not None:
            _refuse_another_data_set(store, old.table, table)
        recipe, network = calibrated(recipe, store, old, plain, table, lambda: weights)
        was_in_one = old is None or old.shards is None
        in_one = was_in_one if in_one is None else in_one
        moved = in_one != was_in_one
        index = _index(recipe, old, store, table, in_one)
        opener = partial(open_engine, recipe, lambda: weights, asked.engine, network)
        computing = (
            nullcontext(ClusterPipeline(cluster, lambda: weights, network))
            if cluster
            else Pipeline(opener, workers)
        )
        with computing as pipeline:
            table, new = _extract_missing(table, index, shard_folder(store), pipeline, place)
        _refuse_nothing_left(table)
        changed = old is None or moved or bool(old.damage()) or old.table != table
        if changed:
            write = assemble if in_one else refer
            write(store, table, index, pipeline.name or (old.engine if old else ""))
    return Summary(
        store=store,
        recipe=recipe,
        photos=photos,
        features=len(table),
        new=new,
        changed=changed,
        duplicates=len(table) - len(table.key.first_rows()),
        ignored=listing.ignored,
        missing=listing.missing if isinstance(listing, Listing) else 0,
        quarantined=table.quarantine,
        damaged=index.damaged,
        mended=old.damage() if old else "",
        seconds=time.perf_counter() - started,
        **(pipeline.said() if isinstance(pipeline, ClusterPipeline) else {}),
    )


def _table(
    listing: Listing | Streamed,
    weights: Weights,
    trusted: Store | None,
    workers: int,
    selection: Selection,
    cluster: Cluster | None,
) -> tuple[Table, PlaceOf]:
    """Make the table of a listing, whose photos it takes the place of, and refuse what makes no sense.

    What comes with it says where each row's photo is.
    """
    old = trusted.table if trusted else None
    place: PlaceOf
    if cluster is not None:
        root = str(listing.root)
        cluster.root = "" if is_address(root) else os.path.abspath(root)
    if isinstance(listing, Listing):
        table = identify(listing, old, workers, cluster)
        place = partial(_path, table)
        listing.photos.clear()
    else:
        table, place = identify_streamed(listing, old, selection.top, selection.classes, cluster)
        listing.objects.clear()
    if weights.path is not None:
        table.weights_path = os.path.abspath(weights.path)
    _refuse_conflicts(table)
    _refuse_nothing_left(table)
    return table, place


def _path(table: Table, row: int) -> str:
    return os.path.join(table.root, table.path[row])


def _open_old(store: Path, recipe: Recipe) -> Store | None:
    """Open the store as it is, if there is one of this recipe, whatever photos int8 was calibrated on."""
    if not store.exists():
        return None
    old = Store.open(store)
    check_recipe(store, old.recipe, replace(recipe, calibration=old.recipe.calibration))
    return old


def _index(recipe: Recipe, old: Store | None, store: Path, table: Table, in_one: bool) -> FeatureIndex:
    """Return where the features at hand are: in the store, and in its shards if that is not enough.

    Nothing is taken from a store whose features do not match their checksum. Photos that could not be
    decoded were looked for in the shards then, and are not again. If they are not to be `in_one` file, those
    that only the store has are put into shards.
    """
    index, folder = FeatureIndex(recipe), shard_folder(store)
    if old is not None:
        check_recipe(store, old.recipe, recipe)
    sound = old is not None and not old.damage()
    if old is not None and sound and (in_one or old.shards is not None):
        old.count_in(index)
    known_bad = np.isin(table.key.packed, old.table.bad_keys.packed) if old else False
    if (index.lacks(table.key) & ~np.asarray(known_bad)).any():
        index.add_shards(folder, {source.path for source in index.places(Keys.of([]))[0]})
    if old is not None and sound and not in_one and old.shards is None:
        move_into_shards(old, table, index, folder)
    return index


def move_into_shards(old: Store, table: Table, index: FeatureIndex, folder: Path) -> None:
    """Put features that only the store `old` has, and `table` wants, into shards, which `index` learns of."""
    writer = ShardWriter(folder, index.recipe, index)
    wanted = np.flatnonzero(index.lacks(old.table.key) & np.isin(old.table.key.packed, table.key.packed))
    at_once = 16 * SHARD_ROWS
    for start in range(0, len(wanted), at_once):
        rows = wanted[start : start + at_once]
        for row, feature in zip(rows.tolist(), old.features(rows), strict=True):
            writer.add(old.table.key[row], old.table.path[row], feature, old.engine)
    writer.commit(old.engine)


def identify(listing: Listing, trusted: Table | None, workers: int, cluster: Cluster | None = None) -> Table:
    """Compute every photo's key; those that cannot be read go to the table's quarantine.

    Parameters
    ----------
    trusted
        An older table whose keys are taken over where path, size and time are the same.
    """
    root = os.path.abspath(listing.root)
    old = trusted if trusted is not None and trusted.root == root else Table(root)

    def with_stamp(photo: Photo) -> tuple[str, Stamp | None]:
        row = old.path.find(photo.path)
        path = os.path.join(root, photo.path)  # whatever folder the reader is in
        return path, (int(old.size[row]), int(old.mtime_ns[row])) if row >= 0 else None

    keys, sizes, times, can_be_read = bytearray(), array("q"), array("q"), bytearray()
    quarantine = []
    photos = progress(listing.photos, desc="looking", unit=" photos", leave=False, delay=1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: Ahead = cluster.in_order if cluster else partial(run_ahead, pool, window=64)
        for photo, (_, seen) in zip(listing.photos, ahead(look, map(with_stamp, photos)), strict=True):
            can_be_read.append(not isinstance(seen, PhotoError))
            if isinstance(seen, PhotoError):
                quarantine.append((photo.path, str(seen)))
                continue
            keys += bytes.fromhex(seen[0] or old.key[old.path.find(photo.path)])
            sizes.append(seen[1])
            times.append(seen[2])
    return Table(
        root=root,
        key=Keys(np.frombuffer(keys, dtype=PACKED)),
        path=Texts.of(photo.path for photo in compress(listing.photos, can_be_read)),
        label=Names.of(photo.label for photo in compress(listing.photos, can_be_read)),
        split=Names.of(photo.split for photo in compress(listing.photos, can_be_read)),
        size=np.frombuffer(sizes, dtype=np.int64),
        mtime_ns=np.frombuffer(times, dtype=np.int64),
        quarantine=quarantine,
    )


def look(item: tuple[str, Stamp | None]) -> tuple[str, int, int] | PhotoError:
    """Return a file's key, size and time; no key if size and time are the stamp that came with its path."""
    path, stamp = item
    try:
        status = os.stat(path)
        found = (status.st_size, status.st_mtime_ns)
        return ("" if found == stamp else key_of(read(path))), *found
    except PhotoError as error:
        return error
    except (OSError, ValueError) as error:
        return PhotoError(f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _extract_missing(
    table: Table, index: FeatureIndex, folder: Path, pipeline: Pipeline | ClusterPipeline, place: PlaceOf
) -> tuple[Table, int]:
    """Compute and commit what `index` lacks; return the table without what cannot be used."""
    rows = table.key.first_rows()
    rows = rows[index.lacks(table.key.take(rows))]
    if not len(rows):
        return table, 0
    bad: dict[str, str] = {}
    writer = ShardWriter(folder, index.recipe, index)
    with progress(total=len(rows), desc="extracting", unit=" photos", smoothing=0.05) as bar:
        wanted = len(rows)
        while len(rows):
            gone = _compute(table, rows, place, writer, pipeline, bad, bar)
            rows = _twins(table, gone)
    return _set_aside(table, bad), wanted - len(bad)


def _compute(
    table: Table,
    rows: Rows,
    place: PlaceOf,
    writer: ShardWriter,
    pipeline: Pipeline | ClusterPipeline,
    bad: dict[str, str],
    bar: Progress[object],
) -> list[int]:
    """Compute and commit the photos of `rows`; put the others' reasons into `bad`, by key.

    Returns
    -------
    list of int
        The rows of those whose files were removed or changed meanwhile.
    """
    gone = []
    under_way: dict[str, int] = {}  # a cluster gives them back as they are done

    def photos() -> Iterator[tuple[str, str | Place]]:
        for row in rows:
            under_way[key := table.key[row]] = row
            yield key, place(row)

    try:
        for (key, _), feature in pipeline.features(photos(), writer.recipe):
            row = under_way.pop(key)
            bad.pop(key, None)
            if isinstance(feature, PhotoError):
                bad[key] = str(feature)
                gone += [int(row)] if isinstance(feature, GoneError) else []
                writer.commit_if_due(pipeline.name)
            else:
                writer.add(key, table.path[row], feature, pipeline.name)
            bar.update()
    finally:
        writer.commit(pipeline.name)
    assert not under_way
    return gone


def _twins(table: Table, gone: list[int]) -> Rows:
    """Return, for each of these rows, the next one with the same photo, byte for byte, if there is one."""
    packed = table.key.packed
    later = (row + 1 + np.flatnonzero(packed[row + 1 :] == packed[row])[:1] for row in gone)
    return np.concatenate([np.zeros(0, dtype=np.intp), *later])


def _set_aside(table: Table, bad: dict[str, str]) -> Table:
    """Return the table with the rows whose keys are in `bad` moved to its quarantine."""
    bad_keys = Keys.of(sorted(bad))
    out = np.isin(table.key.packed, bad_keys.packed)
    reasons = [(table.path[row], bad[table.key[row]]) for row in np.flatnonzero(out)]
    kept = table.take(np.flatnonzero(~out))
    return replace(kept, quarantine=sorted(table.quarantine + reasons), bad_keys=bad_keys)


def _refuse_conflicts(table: Table) -> None:
    """Refuse the same photo under two labels or in two parts of the split."""
    _, first, place = np.unique(table.key.packed, return_index=True, return_inverse=True)
    columns = {"label": table.label, "split": table.split}
    differs = {what: column.codes != column.codes[first[place]] for what, column in columns.items()}
    conflicts = []
    for row in np.flatnonzero(differs["label"] | differs["split"]):
        other = first[place[row]]
        conflicts += [
            f"{table.path[other]} ({what} {column[other] or 'none'}) and "
            f"{table.path[row]} ({what} {column[row] or 'none'})"
            for what, column in columns.items()
            if differs[what][row]
        ]
    if conflicts:
        more = f", and {len(conflicts) - 5} more pairs" if len(conflicts) > 5 else ""
        raise BreedsError(
            f"The same photo, byte for byte, is there with two answers: {'; '.join(conflicts[:5])}"
            f"{more}; remove or relabel one of each pair."
        )


def _refuse_another_data_set(store: Path, old: Table, new: Table) -> None:
    """Refuse to make a store of one folder one of another folder.

    A folder that was moved, renamed or copied, also in part, is told by its photos: `SAME_PHOTOS` of
    the smaller of the two sets must be in the other.
    """
    if os.path.realpath(old.root) == os.path.realpath(new.root):
        return
    one, other = np.unique(old.key.packed), np.unique(new.key.packed)
    common = len(np.intersect1d(one, other, assume_unique=True))
    if common < SAME_PHOTOS * min(len(one), len(other)):
        raise BreedsError(
            f"{store} holds the photos of {old.root}, and {common} of the {len(other)} photos in {new.root} "
            f"are among them, so that is another data set (a folder that was only moved or copied is known "
            f"by its photos); name another --store for it."
        )


def _refuse_nothing_left(table: Table) -> None:
    if len(table) == 0:
        path, reason = table.quarantine[0]
        raise BreedsError(
            f"None of the {len(table.quarantine)} photos in {table.root} can be used; "
            f"the first, {path}: {reason}."
        )
