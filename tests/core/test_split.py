"""The split, as properties: a stratified partition by content, whatever order the photos come in."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from breeds.errors import BreedsError
from breeds.split import check_parts, draw_parts, fold_of

relaxed = settings(max_examples=60, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 10**6)


def keys_of(counts: dict[str, int]) -> tuple[list[str], list[str]]:
    """Different keys for each class, and the label of each."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    keys = [hashlib.sha256(f"{label} {i}".encode()).hexdigest() for i, label in enumerate(labels)]
    return keys, labels


def split_keys(keys, labels, seed: int, val: float = 0.0, given=None) -> np.ndarray:
    """The parts that training draws, if there are enough photos for each."""
    parts = draw_parts(keys, labels, seed, val, given)
    check_parts(keys, labels, parts.tolist(), val)
    return parts


def class_counts(least: int = 2) -> st.SearchStrategy[dict[str, int]]:
    names = st.sampled_from(["pug", "shih-tzu", "Beagle", "Bärenhund", "x"])
    return st.dictionaries(names, st.integers(least, 60), min_size=2)


@relaxed
@given(class_counts(3), seeds, st.sampled_from([0.0, 0.1, 0.25, 0.4]))
def test_every_class_has_its_share_of_every_part(counts: dict[str, int], seed: int, val: float) -> None:
    keys, labels = keys_of(counts)
    part = split_keys(keys, labels, seed, val)
    assert set(part) == ({"train", "test", "val"} if val else {"train", "test"})
    for label, count in counts.items():
        got = Counter(p for p, name in zip(part, labels, strict=True) if name == label)
        assert got.total() == count
        assert got["test"] == max(1, round(0.2 * count))
        assert got["val"] == (max(1, round(val * count)) if val else 0)
        assert got["train"] >= 1


@relaxed
@given(class_counts(3), seeds, st.sampled_from([0.0, 0.2]), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(
    counts: dict[str, int], seed: int, val: float, shuffler: random.Random
) -> None:
    keys, labels = keys_of(counts)
    once = dict(zip(keys, split_keys(keys, labels, seed, val), strict=True))
    rows = list(zip(keys, labels, strict=True))
    shuffler.shuffle(rows)
    keys, labels = map(list, zip(*rows, strict=True))
    assert dict(zip(keys, split_keys(keys, labels, seed, val), strict=True)) == once


@relaxed
@given(class_counts(), seeds, st.data())
def test_duplicates_never_straddle_and_change_nothing(
    counts: dict[str, int], seed: int, data: st.DataObject
) -> None:
    keys, labels = keys_of(counts)
    once = dict(zip(keys, split_keys(keys, labels, seed), strict=True))
    again = data.draw(st.lists(st.integers(0, len(keys) - 1), min_size=1, max_size=40))
    keys, labels = keys + [keys[i] for i in again], labels + [labels[i] for i in again]
    assert all(once[key] == part for key, part in zip(keys, split_keys(keys, labels, seed), strict=True))


@relaxed
@given(class_counts(), seeds)
def test_other_classes_and_their_names_do_not_matter(counts: dict[str, int], seed: int) -> None:
    keys, labels = keys_of(counts)
    once = split_keys(keys, labels, seed)
    assert (split_keys(keys, [f"another {label}" for label in labels], seed) == once).all()
    more_keys, more_labels = keys_of({"new": 10})
    more = split_keys(keys + more_keys, labels + more_labels, seed)
    assert (more[: len(keys)] == once).all()


def test_another_seed_gives_another_split() -> None:
    keys, labels = keys_of({"a": 50, "b": 50})
    splits = {tuple(split_keys(keys, labels, seed)) for seed in range(20)}
    assert len(splits) == 20


def test_the_split_is_the_same_on_every_machine_and_in_every_version() -> None:
    keys, labels = keys_of({"a": 10, "b": 5})
    test = {i for i, part in enumerate(split_keys(keys, labels, seed=0)) if part == "test"}
    val = {i for i, part in enumerate(split_keys(keys, labels, seed=7, val=0.2)) if part == "val"}
    assert (test, val) == ({4, 6, 14}, {0, 5, 14})


@pytest.mark.slow
@relaxed
@given(class_counts(4), seeds, st.data())
def test_what_a_manifest_decided_stays(counts: dict[str, int], seed: int, data: st.DataObject) -> None:
    keys, labels = keys_of(counts)
    parts = st.sampled_from(["", "train", "val", "test"])
    decided = data.draw(st.lists(parts, min_size=len(keys), max_size=len(keys)))
    for label in counts:  # every class keeps a training photo
        decided[labels.index(label)] = "train"
    part = split_keys(keys, labels, seed, given=decided)
    assert set(part) <= {"train", "val", "test"}
    assert all(got == said for got, said in zip(part, decided, strict=True) if said)


@pytest.mark.slow
@relaxed
@given(class_counts(4), seeds, st.sampled_from([0.0, 0.25]), st.data())
def test_where_a_manifest_names_test_photos_no_other_becomes_one(
    counts: dict[str, int], seed: int, val: float, data: st.DataObject
) -> None:
    keys, labels = keys_of(counts)
    parts = st.sampled_from(["", "test"])
    decided = data.draw(st.lists(parts, min_size=len(keys), max_size=len(keys)))
    for label in counts:
        decided[labels.index(label)] = "train"
    decided[-1] = "test"
    part = split_keys(keys, labels, seed, val, decided)
    assert [p == "test" for p in part] == [said == "test" for said in decided]
    for label in counts:
        got = Counter(p for p, name, said in zip(part, labels, decided, strict=True)
                      if name == label and not said)  # fmt: skip
        wanted = min(max(1, round(val * got.total())), got.total() - 1) if val and got.total() > 1 else 0
        assert got["val"] == wanted


def test_where_a_manifest_names_only_training_photos_the_others_are_split() -> None:
    keys, labels = keys_of({"a": 30, "b": 30})
    decided = ["train"] * 10 + [""] * 20 + ["val"] * 10 + [""] * 20
    part = split_keys(keys, labels, 0, given=decided)
    assert Counter(part[10:30]) == Counter(part[40:]) == {"train": 16, "test": 4}


def test_a_decision_on_one_copy_holds_for_all() -> None:
    keys, labels = keys_of({"a": 3, "b": 3})
    part = split_keys(keys + keys, labels + labels, 0, given=["val"] * 2 + [""] * 4 + [""] * 6)
    assert part[[0, 1, 6, 7]].tolist() == ["val"] * 4
    assert (part[:6] == part[6:]).all()


@pytest.mark.parametrize(
    ("counts", "val", "words"),
    [
        ({}, 0.0, "at least two classes"),
        ({"pug": 9}, 0.0, r"at least two classes.*pug"),
        ({"pug": 9, "one": 1, "uno": 1}, 0.0, r"at least 2 different photos.*one, uno:"),
        ({"pug": 9, "two": 2}, 0.2, r"at least 3 different photos.*two:"),
    ],
)
def test_too_little_is_refused_naming_the_classes(counts: dict[str, int], val: float, words: str) -> None:
    with pytest.raises(BreedsError, match=words):
        split_keys(*keys_of(counts), 0, val)


def test_copies_of_one_photo_are_one_photo() -> None:
    keys, labels = keys_of({"pug": 9, "one": 1})
    with pytest.raises(BreedsError, match="one"):
        split_keys(keys + keys[-1:] * 5, labels + ["one"] * 5, 0)


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_manifest_that_leaves_a_class_untrained_is_refused(part: str) -> None:
    keys, labels = keys_of({"pug": 4, "beagle": 4})
    with pytest.raises(BreedsError, match="beagle without a training photo"):
        split_keys(keys, labels, 0, given=[""] * 4 + [part] * 4)


@relaxed
@given(class_counts(), seeds, st.integers(2, 8), st.randoms(use_true_random=False))
def test_folds_are_even_stratified_and_by_content(
    counts: dict[str, int], seed: int, folds: int, shuffler: random.Random
) -> None:
    keys, labels = keys_of(counts)
    fold = fold_of(keys, labels, folds, seed)
    assert set(fold) <= set(range(folds))
    for who in [np.full(len(keys), True), *(np.array(labels) == label for label in counts)]:
        sizes = np.bincount(fold[who], minlength=folds)
        assert sizes.max() - sizes.min() <= 1
    order = shuffler.sample(range(len(keys)), len(keys))
    shuffled = fold_of([keys[i] for i in order], [labels[i] for i in order], folds, seed)
    assert (shuffled == fold[order]).all()


@relaxed
@given(seeds, seeds)
def test_another_seed_gives_other_folds(one: int, two: int) -> None:
    assume(one != two)
    keys, labels = keys_of({"a": 40, "b": 40})
    assert (fold_of(keys, labels, 5, one) != fold_of(keys, labels, 5, two)).any()
