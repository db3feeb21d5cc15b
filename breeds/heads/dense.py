"""The notebook's dense head: dropout, 1024 rectified units, dropout, softmax, in Keras.

Keras only trains it. The result is plain arrays, and predicting with them needs no TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from breeds.backbones.keras import keras

UNITS = 1024
DROPOUT = 0.5
EPOCHS = 60
PATIENCE = 6
BATCH = 64
LEARNING_RATE = 3e-4
LABEL_SMOOTHING = 0.05


@dataclass(frozen=True)
class Fit:
    """The trained layers and how training went: the validation log loss after each epoch."""

    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    val_log_loss: list[float]
    best_epoch: int


def fit(
    features: NDArray[np.float32],
    targets: NDArray[np.intp],
    validation: NDArray[np.bool_],
    seed: int,
) -> Fit:
    """Train on the photos that are not for validation; stop early and keep the best epoch.

    Parameters
    ----------
    features
        Standardised, float32 (n, width).
    targets
        Class numbers, shape (n,).
    validation
        Which photos decide when to stop, shape (n,).
    seed
        The same seed gives the same head on one machine.
    """
    seed %= 2**32 - 1  # Keras takes no larger one, nor do the two layers below
    keras.utils.set_random_seed(seed)
    classes = int(targets.max()) + 1
    model = keras.Sequential(
        [
            keras.layers.Input((features.shape[1],)),
            keras.layers.Dropout(DROPOUT, seed=seed),
            keras.layers.Dense(UNITS, activation="relu"),
            keras.layers.Dropout(DROPOUT, seed=seed + 1),
            keras.layers.Dense(classes),
        ]
    )
    one_hot = np.eye(classes, dtype=np.float32)[targets]
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING),
        metrics=[keras.metrics.CategoricalCrossentropy(name="log_loss", from_logits=True)],
    )
    model.optimizer.build(model.trainable_variables)  # else the first step makes it, and is traced twice
    stop = keras.callbacks.EarlyStopping(
        "val_log_loss", mode="min", patience=PATIENCE, restore_best_weights=True
    )
    counts = np.bincount(targets[~validation], minlength=classes)
    history = model.fit(
        features[~validation],
        one_hot[~validation],
        validation_data=(features[validation], one_hot[validation]),
        class_weight={k: len(targets) / (classes * max(1, count)) for k, count in enumerate(counts)},
        batch_size=BATCH,
        epochs=EPOCHS,
        callbacks=[stop],
        verbose=0,
    ).history["val_log_loss"]
    arrays = [np.asarray(array, dtype=np.float32) for array in model.get_weights()]
    layers = list(zip(arrays[0::2], arrays[1::2], strict=True))
    return Fit(layers, [float(loss) for loss in history], int(np.argmin(history)) + 1)
