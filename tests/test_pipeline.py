"""Working ahead of the engine: every item comes back once, in order, whatever its fate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breeds.errors import PhotoError
from breeds.pipeline import stream_features


class Batches:
    """An engine that gathers batches of four, as Keras does: the mean of each photo."""

    name = "batches"

    def stream(self, pixels):
        batch = []
        for photo in pixels:
            batch.append(photo)
            if len(batch) == 4:
                yield from (photo.mean(keepdims=True) for photo in batch)
                batch = []
        yield from (photo.mean(keepdims=True) for photo in batch)


@given(st.lists(st.sampled_from(["pixels", "known", "bad"]), max_size=40))
def test_every_item_comes_back_once_in_order(fates: list[str]) -> None:
    opened = []

    def prepare(item):
        number, fate = item
        answers = {"pixels": np.full((2, 2, 3), number, np.uint8), "known": None, "bad": PhotoError("no")}
        return answers[fate]

    def engine():
        opened.append(1)
        return Batches()

    items = list(enumerate(fates))
    found = list(stream_features(items, prepare, engine, workers=2))
    assert [item for item, _ in found] == items
    for (number, fate), feature in found:
        if fate == "pixels":
            assert feature == pytest.approx(number)
        else:
            assert (feature is None) == (fate == "known")
    assert len(opened) == ("pixels" in fates)
