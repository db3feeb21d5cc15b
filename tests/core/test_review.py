"""Review and training again: who is asked about, in what order, and what is compared afterwards."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from conftest import ROOT, MakeStore
from killed import BEFORE_FORKS, COUNTED, ONE_THREAD
from scipy.stats import binomtest

from breeds import features as stores
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features import Store, Table
from breeds.features.columns import Names
from breeds.features.corrections import Correction, Corrections
from breeds.heads.label_issues import find_doubts, find_near_duplicates, judge
from breeds.heads.model import Model, softmax
from breeds.review import label_next, queue, train_again
from breeds.split import draw_parts, fold_of
from breeds.training import train

THREE = {"beagle": 30, "boxer": 30, "pug": 30}
NONE = Corrections()


def relabelled(store: Store, labels: dict[int, str]) -> Store:
    """The store as if these rows had come with other labels."""
    column = [labels.get(row, label) for row, label in enumerate(store.table.label)]
    return store.like(table=replace(store.table, label=Names.of(column)))


def write_store(
    path: Path, config: FeatureConfig, features: np.ndarray, labels: list[str], keys: list[str] | None = None
) -> Store:
    """A real store of these features, float32 (n, 2048)."""
    keys = keys or [np.random.default_rng(i).bytes(32).hex() for i in range(len(labels))]
    paths = [f"{label or 'none'}/{i:04d}.jpg" for i, label in enumerate(labels)]
    n = len(labels)
    table = Table("made up", "", keys, paths, labels, [""] * n, [1] * n, [0] * n)
    stores.write_store(path, table, config, features.astype(np.float32), "made up")
    return Store(path)


@pytest.fixture
def planted(tmp_path: Path, random_config: FeatureConfig) -> tuple[Store, Model, list[str]]:
    """A store with five wrong labels, its model, and the keys of these five; a third is blurred."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(3, 2048)), 30, axis=0)
    noise = np.tile(np.repeat([1.0, 4.0], [20, 10]), 3)[:, None] * rng.normal(size=(90, 2048))
    labels = [label for label, count in THREE.items() for _ in range(count)]
    wrong = {3: "boxer", 17: "pug", 40: "pug", 66: "beagle", 72: "boxer"}
    for row, label in wrong.items():
        labels[row] = label
    store = write_store(tmp_path / "s.h5", random_config, 0.3 * centres + noise + 3, labels)
    return store, train(store, C=0.001), [store.table.key[row] for row in wrong]


# The queue


def test_doubts_come_first_and_are_those_of_the_evaluation(planted: tuple[Store, Model, list[str]]) -> None:
    store, model, wrong = planted
    items = queue(store, model, NONE, most=200)
    doubts = [item for item in items if item.kind == "doubt"]
    assert [(i.path, i.label, i.suggestion, i.probability) for i in doubts] == [
        (d.path, d.label, d.suggestion, d.suggestion_probability) for d in find_doubts(store)
    ]
    assert items[: len(doubts)] == doubts
    assert len(doubts) >= 4
    assert {item.key for item in doubts} <= set(wrong) <= {item.key for item in items[:8]}
    first = doubts[0]
    assert first.reason.startswith(f"labelled {first.label}; the other photos say {first.suggestion}, "), (
        "words for people"
    )
    assert first.reason.endswith("\u202f%")


def test_every_photo_is_asked_about_once_in_the_order_of_kinds(
    planted: tuple[Store, Model, list[str]],
) -> None:
    store, model, _ = planted
    items = queue(store, model, NONE, most=1000)
    assert sorted(item.key for item in items) == sorted(store.table.key)
    order = ["doubt", "mistake", "twins", "uncertain"]
    kinds = [item.kind for item in items]
    assert kinds == sorted(kinds, key=order.index)
    assert {"doubt", "mistake", "uncertain"} == set(kinds)
    assert queue(store, model, NONE, most=7) == items[:7]
    seen = model.seen_keys()
    assert all((item.part == "train") == (item.key in seen) for item in items)
    assert {item.part for item in items} == {"train", "test"}


def answers_of(store: Store, model: Model) -> dict[str, dict[str, float]]:
    """What has not seen a photo says of it: the model on test photos, heads without it on the others."""
    judged, seen = judge(store), model.seen_keys()
    given = model.probabilities(store.features())
    found = {}
    for i, row in enumerate(judged.rows):
        key, names, answer = store.table.key[row], judged.classes, judged.probabilities[i]
        if key not in seen:
            names, answer = model.classes, given[row]
        found[key] = dict(zip(names, answer.tolist(), strict=True))
    return found


@pytest.mark.slow
def test_mistakes_then_the_least_certain_by_what_has_not_seen_them(
    planted: tuple[Store, Model, list[str]],
) -> None:
    store, model, _ = planted
    answers = answers_of(store, model)
    items = queue(store, model, NONE, most=1000)
    doubted = {item.key for item in items if item.kind == "doubt"}
    label = dict(zip(store.table.key, store.table.label, strict=True))
    best = {key: max(answers[key], key=answers[key].get) for key in answers}
    wrong = [key for key in answers if best[key] != label[key] and key not in doubted]
    mistakes = [item for item in items if item.kind == "mistake"]
    assert [item.key for item in mistakes] == sorted(wrong, key=lambda key: -answers[key][best[key]])
    for item in mistakes:
        assert item.suggestion == best[item.key]
        assert item.probability == pytest.approx(answers[item.key][item.suggestion])
        assert ("the model, which has not seen it" in item.reason) == (item.part == "test")
    unsure = [item for item in items if item.kind == "uncertain"]
    margins = [
        answers[item.key][item.label] - max(p for c, p in answers[item.key].items() if c != item.label)
        for item in unsure
    ]
    assert margins == sorted(margins)
    assert len(unsure) == len(answers) - len(doubted) - len(mistakes)


@pytest.mark.slow
def test_who_was_answered_or_skipped_is_not_asked_again(planted: tuple[Store, Model, list[str]]) -> None:
    store, model, _ = planted
    first, second, third = queue(store, model, NONE)[:3]
    said = Corrections.of(
        [Correction(first.key, first.label, first.label), Correction(second.key, second.suggestion)]
    )
    left = queue(store, model, said, most=1000, skipped={third.key})
    assert len(left) == len(store.table) - 3
    assert not {first.key, second.key, third.key} & {item.key for item in left}
    out = queue(store, model, Corrections.of([Correction(first.key, "")]), most=1000)
    assert len(out) == len(store.table) - 1


@pytest.fixture
def twins(tmp_path: Path, random_config: FeatureConfig) -> tuple[Store, Model]:
    """Three pairs of one picture each; nothing that judges one of the last pair has seen the other."""
    rng = np.random.default_rng(1)
    apart = 0.2 * rng.normal(size=2048)
    features = rng.normal(size=(80, 2048)) + 3
    features[40:] += apart
    labels = ["beagle"] * 40 + ["pug"] * 40
    keys = [np.random.default_rng(i).bytes(32).hex() for i in range(80)]
    fold, part = fold_of(keys, labels, 5, 0), draw_parts(keys, labels, 0)
    alone = [(i, j) for i in range(10, 40) for j in range(60, 80) if fold[i] == fold[j]]
    last = next((i, j) for i, j in alone if part[i] == part[j] == "train")
    for one, other in ((2, 50), (5, 51), last):
        features[other] = features[one] + apart
    store = write_store(tmp_path / "s.h5", random_config, features, labels, keys)
    return store, train(store, C=0.001)


@pytest.mark.slow
def test_two_of_one_picture_are_one_item(twins: tuple[Store, Model]) -> None:
    store, model = twins
    pairs = {frozenset((pair.path, pair.other_path)) for pair in find_near_duplicates(store)}
    assert len(pairs) == 3
    items = queue(store, model, NONE, most=1000)
    asked = [key for item in items for key in (item.key, item.twin) if key]
    assert sorted(asked) == sorted(store.table.key), "each photo once, whatever it is asked about for"
    found = [item for item in items if item.twin]
    assert {frozenset((item.path, item.twin_path)) for item in found} == pairs
    assert len(items) == 80 - 3
    assert "twins" in {item.kind for item in found}
    for item in found:
        assert {item.label, item.twin_label} == {"beagle", "pug"}
        assert item.reason.endswith(f"nearly the same picture is labelled {item.twin_label}")


@pytest.mark.slow
def test_a_pair_is_no_pair_once_the_labels_agree(twins: tuple[Store, Model]) -> None:
    store, model = twins
    for item in [item for item in queue(store, model, NONE, most=1000) if item.twin]:
        said = Corrections.of([Correction(item.key, item.twin_label)])
        left = queue(store, model, said, most=1000)
        assert item.key not in {other.key for other in left}
        assert not any(item.key == other.twin for other in left)
        both = Corrections.of([Correction(item.key, item.label), Correction(item.twin, item.twin_label)])
        left = queue(store, model, both, most=1000)
        assert not {item.key, item.twin} & {key for other in left for key in (other.key, other.twin)}
        if item.kind == "twins":
            left = queue(store, model, NONE, most=1000, skipped={item.twin})
            assert not any(other.kind == "twins" and item.key in (other.key, other.twin) for other in left)


def test_a_new_class_of_one_photo_does_not_stop_the_queue(planted: tuple[Store, Model, list[str]]) -> None:
    store, model, wrong = planted
    said = Corrections.of([Correction(wrong[0], "husky")])
    items = queue(store, model, said, most=1000)
    assert wrong[0] not in {item.key for item in items}
    assert len(items) == len(store.table) - 1


def test_classes_that_the_model_does_not_know_are_asked_about(
    planted: tuple[Store, Model, list[str]],
) -> None:
    store, model, _ = planted
    test = [key for key in store.table.key if key not in model.seen_keys()][:4]
    said = Corrections.of([Correction(key, "husky") for key in store.table.key[:5]])
    store = relabelled(store, {store.table.key.index(key): "whippet" for key in test})
    items = queue(store, model, said, most=1000)
    assert {item.key for item in items} == set(store.table.key) - said.last.keys()
    assert all(item.kind in ("doubt", "mistake") for item in items if item.key in test)


def test_what_is_wrong_with_the_stores_is_said(
    planted: tuple[Store, Model, list[str]], make_store: MakeStore
) -> None:
    store, model, _ = planted
    other = store.like(config=replace(store.config, size=96))
    with pytest.raises(BreedsError, match="another config"):
        queue(other, model, NONE)
    with pytest.raises(BreedsError, match="another config"):
        label_next(other, model, NONE)
    alone = Corrections.of(
        [Correction(key, "") for key, label in zip(store.table.key, store.table.label, strict=True)
         if label != "pug"]
    )  # fmt: skip
    with pytest.raises(BreedsError, match="two are needed"):
        queue(store, model, alone)


def test_names_are_lines_in_the_words(make_store: MakeStore) -> None:
    store = Store(make_store({"a\x1b[2J\nb": 12, "caf\udce9": 12}, spread=0.05))
    for item in queue(store, train(store, C=0.001), NONE):
        assert item.label in store.table.label.names, "as it is, for what comes back"
        assert item.reason.replace("\u202f", " ").isprintable()


# What to label next


@pytest.fixture
def halfway(make_store: MakeStore) -> tuple[Store, Model]:
    """A store of which each class has eight labels, and its model."""
    store = Store(make_store(THREE, noise=1.0, spread=0.05))
    bare = relabelled(store, {row: "" for row in range(90) if row % 30 >= 8})
    return bare, train(bare, C=0.001)


def test_only_unlabelled_photos_are_suggested_the_same_each_time(halfway: tuple[Store, Model]) -> None:
    store, model = halfway
    unlabelled = {key for key, label in zip(store.table.key, store.table.label, strict=True) if not label}
    found = label_next(store, model, NONE, most=12)
    assert len({item.key for item in found}) == 12
    assert {item.key for item in found} <= unlabelled
    assert found == label_next(store, model, NONE, most=12)
    rows = np.random.default_rng(0).permutation(len(store.table))
    moved = write_store(
        store.path.with_name("moved.h5"), store.config, store.features()[rows],
        [store.table.label[row] for row in rows], [store.table.key[row] for row in rows],
    )  # fmt: skip
    assert [i.key for i in label_next(moved, model, NONE, most=12)] == [item.key for item in found]
    answers = softmax(model.logits(store.features_of([item.key for item in found])))
    for item, answer in zip(found, answers, strict=True):
        assert item.suggestion == model.classes[answer.argmax()]
        assert item.probability == answer.max()
        assert f"before {model.classes[np.argsort(answer)[-2]]}, " in item.reason


def test_photos_that_were_answered_or_left_out_are_not_suggested(halfway: tuple[Store, Model]) -> None:
    store, model = halfway
    total = store.table.label.given()
    one, two, three = (item.key for item in label_next(store, model, NONE, most=3))
    said = Corrections.of([Correction(one, "pug"), Correction(two, "")])
    left = label_next(store, model, said, most=1000, skipped=[three])
    assert len(left) == (~total).sum() - 3
    assert not {one, two, three} & {item.key for item in left}
    answers = np.sort(softmax(model.logits(store.features_of([item.key for item in left]))), axis=1)
    margins = (answers[:, -1] - answers[:, -2]).tolist()
    assert margins == sorted(margins), "where all are asked about, the least certain come first"
    assert label_next(store, model, NONE, most=0) == []
    assert label_next(relabelled(store, dict.fromkeys(range(90), "pug")), model, NONE) == []


def test_suggestions_are_unsure_and_differ_from_each_other(
    tmp_path: Path, random_config: FeatureConfig
) -> None:
    """Of three heaps of unsure photos that are nearly the same each, one photo each is asked about."""
    rng = np.random.default_rng(0)
    beagle, pug = rng.normal(size=(2, 2048))
    known = np.concatenate([beagle + rng.normal(size=(20, 2048)), pug + rng.normal(size=(20, 2048))])
    heaps = [(beagle + pug) / 2 + 2 * rng.normal(size=2048) for _ in range(3)]
    unsure = np.concatenate([heap + 0.01 * rng.normal(size=(10, 2048)) for heap in heaps])
    sure = beagle + rng.normal(size=(400, 2048))
    labels = ["beagle"] * 20 + ["pug"] * 20 + [""] * 430
    store = write_store(tmp_path / "s.h5", random_config, np.concatenate([known, unsure, sure]), labels)
    model = train(store, C=0.001)
    margin = -np.diff(np.sort(model.probabilities(store.features()[40:]), axis=1)[:, ::-1], axis=1)[:, 0]
    assert margin[:30].max() < np.sort(margin[30:])[0], "the heaps are what it is least sure of"
    rows = {store.table.key[row]: row for row in range(470)}
    found = [rows[item.key] for item in label_next(store, model, NONE, most=3)]
    assert sorted((row - 40) // 10 for row in found) == [0, 1, 2]


def test_equal_photos_are_suggested_as_often_as_asked_for(
    tmp_path: Path, random_config: FeatureConfig
) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 2048))
    features[20:] = features[20]
    labels = ["a"] * 10 + ["b"] * 10 + [""] * 40
    store = write_store(tmp_path / "s.h5", random_config, features, labels)
    found = label_next(store, train(store, C=0.001), NONE, most=15)
    assert len({item.key for item in found}) == 15


# Training again


@pytest.fixture
def model_path(planted: tuple[Store, Model, list[str]], tmp_path: Path) -> Path:
    path = tmp_path / "models" / "m.safetensors"
    planted[1].save(path)
    return path


def test_the_same_photos_give_the_same_head(
    planted: tuple[Store, Model, list[str]], model_path: Path
) -> None:
    store, old, _ = planted
    again = train_again(model_path, store, NONE)
    new = Model.load(model_path)
    assert np.array_equal(new.layers[0][0], old.layers[0][0])
    assert new.temperature == old.temperature
    assert again.model.record["C"] == old.record["C"] == 0.001
    assert again.before == again.after
    assert (again.only_before, again.only_after, again.p_value) == (0, 0, 1.0)
    assert again.photos == old.record["n_test"]
    assert (again.new, again.gone) == ([], [])
    assert "do not show that either is better" in again.in_words


@pytest.mark.parametrize(("C", "kept"), [(0.003, "you"), (None, "5-fold cross-validation, kept since")])
@pytest.mark.slow
def test_C_is_kept_and_the_record_says_who_chose_it(
    planted: tuple[Store, Model, list[str]], model_path: Path, C: float | None, kept: str
) -> None:
    store, _, wrong = planted
    old = train(store, C=C, seed=3, val=0.1, balanced=True, keep=0.8)
    old.save(model_path)
    said = Corrections.of([Correction(key, "") for key in wrong])
    for _ in range(2):
        record = train_again(model_path, store, said).model.record
        assert record["C"] == old.record["C"]
        assert record["C_chosen_by"] == kept
    found = Model.load(model_path)
    plain = train(store.with_corrections(said), C=old.record["C"], seed=3, val=0.1, balanced=True, keep=0.8)
    assert np.array_equal(found.layers[0][0], plain.layers[0][0])
    assert found.seen_keys() == plain.seen_keys()
    assert found.unknown.threshold == plain.unknown.threshold
    searched = train_again(model_path, store, said, search=True).model
    assert searched.record["C_chosen_by"] == "5-fold cross-validation"
    anew = train(store.with_corrections(said), seed=3, val=0.1, balanced=True, keep=0.8)
    assert searched.record["C"] == anew.record["C"]


def test_before_and_after_are_of_untouched_test_photos(
    planted: tuple[Store, Model, list[str]], model_path: Path
) -> None:
    store, old, wrong = planted
    test = [key for key in store.table.key if key not in old.seen_keys()]
    touched = [*test[:3], *(key for key in wrong if key not in test)]
    labels = dict(zip(store.table.key, store.table.label, strict=True))
    said = Corrections.of(
        [Correction(test[0], ""), Correction(test[1], labels[test[1]]), Correction(test[2], "pug")]
        + [Correction(key, "") for key in touched[3:]]
    )
    again = train_again(model_path, store, said)
    new = Model.load(model_path)
    assert new.tested_keys() == set(test), "no correction moves a photo from one part to another"
    keys = test[3:]
    assert again.photos == len(keys)
    truth = [labels[key] for key in keys]
    features = store.features_of(keys)
    right = []
    for model, score in ((old, again.before), (new, again.after)):
        answers = model.probabilities(features)
        given = [model.classes[i] for i in answers.argmax(axis=1)]
        right.append(np.array(given) == np.array(truth))
        assert score.accuracy == pytest.approx(sklearn.metrics.accuracy_score(truth, given))
        assert score.log_loss == pytest.approx(sklearn.metrics.log_loss(truth, answers, labels=model.classes))
        assert score.accuracy_interval[0] <= score.accuracy <= score.accuracy_interval[1]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert (again.only_before, again.only_after) == only
    if sum(only):
        assert again.p_value == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert f"{len(keys)} test photos that nobody touched" in again.in_words


@pytest.mark.slow
def test_taught_photos_are_never_compared(
    make_store: MakeStore, tmp_path: Path, random_config: FeatureConfig
) -> None:
    store = Store(make_store(THREE, spread=0.05))
    path = tmp_path / "m.safetensors"
    train(store, C=0.001).save(path)
    old = Model.load(path)
    rng = np.random.default_rng(5)
    more = store.features()[:40] + rng.normal(size=(40, 2048))
    labels = [*store.table.label, *["beagle"] * 30, *["husky"] * 10]
    keys = [*store.table.key, *(rng.bytes(32).hex() for _ in range(40))]
    grown = write_store(
        tmp_path / "grown.h5", random_config, np.concatenate([store.features(), more]), labels, keys
    )
    again = train_again(path, grown, NONE)
    new = again.model
    taught_tested = new.tested_keys() - set(store.table.key)
    assert taught_tested, "some of the taught photos are for testing from now on"
    assert again.photos == len(old.tested_keys() & new.tested_keys() - old.seen_keys() - new.seen_keys())
    assert again.photos <= len(old.tested_keys())
    assert again.new == ["husky"]
    assert "husky is new" in again.in_words
    # The next time they are as good as any other.
    assert train_again(path, grown, NONE).photos == len(new.tested_keys())


@pytest.mark.parametrize("tested", [np.zeros((2, 31), np.uint8), np.zeros((2, 32)), np.zeros(32, np.uint8)])
def test_keys_of_test_photos_that_are_none_are_refused(
    planted: tuple[Store, Model, list[str]], model_path: Path, tested: np.ndarray
) -> None:
    replace(planted[1], tested=tested).save(model_path)
    with pytest.raises(BreedsError, match="SHA-256"):
        Model.load(model_path)


@pytest.mark.slow
def test_a_class_that_is_gone_is_said(planted: tuple[Store, Model, list[str]], model_path: Path) -> None:
    store, _, _ = planted
    came = zip(store.table.key, store.table.label, strict=True)
    said = Corrections.of([Correction(key, "beagle") for key, label in came if label == "pug"])
    again = train_again(model_path, store, said)
    assert (again.new, again.gone) == ([], ["pug"])
    assert again.model.classes == ["beagle", "boxer"]
    assert "pug is gone: the new model cannot be asked about that." in again.in_words
    back = train_again(model_path, store, NONE)
    assert back.new == ["pug"]


def test_where_every_test_photo_was_touched_nothing_is_compared(
    planted: tuple[Store, Model, list[str]], model_path: Path
) -> None:
    store, old, _ = planted
    labels = dict(zip(store.table.key, store.table.label, strict=True))
    said = Corrections.of([Correction(key, labels[key]) for key in old.tested_keys()])
    again = train_again(model_path, store, said)
    assert (again.photos, again.before, again.after, again.p_value) == (0, None, None, 1.0)
    assert "cannot be compared" in again.in_words


def test_what_cannot_be_trained_leaves_the_model_as_it_is(
    planted: tuple[Store, Model, list[str]], model_path: Path, make_store: MakeStore
) -> None:
    store, _, _ = planted
    before = model_path.read_bytes()
    one = Corrections.of([Correction(store.table.key[0], "husky")])
    with pytest.raises(BreedsError, match="husky"):
        train_again(model_path, store, one)
    all_out = Corrections.of([Correction(key, "") for key in store.table.key])
    with pytest.raises(BreedsError):
        train_again(model_path, store, all_out)
    with pytest.raises(BreedsError, match="another config"):
        train_again(model_path, store.like(config=replace(store.config, size=96)), NONE)
    with pytest.raises(BreedsError, match="stores"):
        train_again(model_path, store.like(also=(store,)), NONE)
    with pytest.raises(BreedsError, match="No such model"):
        train_again(model_path.with_name("none.safetensors"), store, NONE)
    assert model_path.read_bytes() == before
    assert [path.name for path in model_path.parent.iterdir()] == [model_path.name]


@pytest.mark.slow
def test_views_are_trained_on_again(
    make_store: MakeStore, tmp_path: Path, random_config: FeatureConfig
) -> None:
    store = Store(make_store(THREE, name="features/made.h5", spread=0.05))
    flip = replace(random_config, view="flip")
    view = write_store(
        tmp_path / "features" / "made+flip.h5", flip, store.features() * 1.01,
        list(store.table.label), list(store.table.key),
    )  # fmt: skip
    path = tmp_path / "m.safetensors"
    train(store, C=0.001, views=[view]).save(path)
    again = train_again(path, store, NONE)
    assert again.model.record["views"] == ["flip"]
    assert again.before == again.after
    view.path.unlink()
    with pytest.raises(BreedsError, match="flip"):
        train_again(path, store, NONE)


@pytest.mark.parametrize("views", ["flip", [1], ["../../x"], {"flip": 1}])
def test_a_record_cannot_name_other_files_as_views(
    planted: tuple[Store, Model, list[str]], model_path: Path, views: object
) -> None:
    _, model, _ = planted
    replace(model, record=model.record | {"views": views}).save(model_path)
    with pytest.raises(BreedsError, match="not a model"):
        Model.load(model_path)


KILLED = (
    """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import breeds.review, scipy.optimize, sklearn.linear_model  # once, and not in each child
from breeds.review import train_again
from breeds.features import Store
from breeds.features.corrections import Correction, Corrections

"""
    + COUNTED
    + BEFORE_FORKS
    + """
for name in ("fsync", "replace", "unlink", "open"):
    setattr(os, name, counted(getattr(os, name)))
left = 0
for line in sys.stdin:
    model, store, keys, step = json.loads(line)
    child = os.fork()
    if not child:
        left = step
        train_again(Path(model), Store(Path(store)), Corrections.of([Correction(k, "") for k in keys]))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
)


@pytest.mark.slow
def test_killed_at_every_step_the_model_is_the_old_or_the_new(make_store: MakeStore, tmp_path: Path) -> None:
    store = Store(make_store(dict.fromkeys(THREE, 10), width=64, spread=0.6))
    path = tmp_path / "models" / "m.safetensors"
    train(store, C=0.001).save(path)
    old, outcomes = path.read_bytes(), set()
    out = [key for key in store.table.key if key in Model.load(path).seen_keys()][:5]
    parent = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(ROOT)], env={**os.environ, **ONE_THREAD},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for step in itertools.count(1):
        path.write_bytes(old)
        parent.stdin.write(json.dumps([str(path), str(store.path), out, step]) + "\n")
        parent.stdin.flush()
        code = int(parent.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        is_new = path.read_bytes() != old
        if is_new:
            assert Model.load(path).record["corrections"]["left_out"] == 5
        outcomes.add(is_new)
        if code == 0:
            break
    parent.stdin.close()
    parent.wait(60)
    assert step > 4
    assert outcomes == {False, True}
    assert sorted(os.listdir(path.parent)) == ["m.md", path.name], (
        "the next writer removes what a killed one left"
    )
