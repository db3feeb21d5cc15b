"""The notebook's dense head: dropout, 1024 rectified units, dropout, softmax, in Keras.

Keras only trains it. The result is plain arrays, and predicting with them needs no TensorFlow.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.heads.kinds import Fitted, TrainingData, TrainingSettings
from breeds.heads.logistic import fit_temperature, standardise
from breeds.heads.model import apply_layers
from breeds.machine import quiet, run_alone
from breeds.started import commanded, need

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

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 1, whose weights were kept."""
        return int(np.argmin(self.val_log_loss)) + 1


def train(data: TrainingData, settings: TrainingSettings) -> Fitted:
    """Fit the dense head, with a temperature that the validation photos say, which stop it too.

    TensorFlow prints and sets what it likes: in another program than Breeds's commands it gets a process of
    its own.
    """
    need("tensorflow", "keras")
    validation, targets = data.validation, data.targets
    if validation is None or not 0 < validation.sum() < len(targets):
        raise BreedsError("The dense head needs photos for training and others for validation.")
    mean, scale = standardise(data.features[~validation])
    standard = (data.features - mean) / scale
    what = standard, targets, validation, settings.seed
    try:
        trained = fit(*what) if commanded() else run_alone(fit, *what)
    except BrokenExecutor:
        raise BreedsError("The process that trains the head was killed; is there enough memory?") from None
    temperature = fit_temperature(apply_layers(standard[validation], trained.layers), targets[validation])
    how = {"best_epoch": trained.best_epoch, "val_log_loss": min(trained.val_log_loss)}
    return Fitted(mean, scale, trained.layers, temperature, how)


def fit(
    features: NDArray[np.float32],
    targets: NDArray[np.intp],
    validation: NDArray[np.bool_],
    seed: int,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
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
    epochs, learning_rate
        How many at most, and how large Adam's steps are.
    """
    with quiet():
        import keras
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
        optimizer=keras.optimizers.Adam(learning_rate),
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
        epochs=epochs,
        callbacks=[stop],
        verbose=0,
    ).history["val_log_loss"]
    arrays = [np.asarray(array, dtype=np.float32) for array in model.get_weights()]
    layers = list(zip(arrays[0::2], arrays[1::2], strict=True))
    return Fit(layers, [float(loss) for loss in history])
