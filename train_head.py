#!/usr/bin/env python3
"""Features to a model: train a head on a store, in about a second. Then: evaluate.py, predict.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from breeds import cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = cli.parser(__doc__)
    add = result.add_argument
    add("--store", metavar="FILE", type=Path, help="the store to train on (default: the newest in features/)")
    add("--model", metavar="FILE", type=Path,
        help="the model to write (default: models/STORE.safetensors)")  # fmt: skip
    add("--head", choices=("logistic", "dense"), default="logistic",
        help="logistic regression, or a small neural network trained by Keras")  # fmt: skip
    add("--C", metavar="X", type=cli.positive_float,
        help="inverse regularisation strength of logistic regression (default: chosen by 5-fold "
        "cross-validation)")  # fmt: skip
    add("--seed", metavar="N", type=cli.natural, default=0, help="decides the split and everything random")
    add("--val", metavar="SHARE", type=cli.share, default=0.0,
        help="share of the photos for validation, beside the fifth for testing")  # fmt: skip
    add("--export", choices=("joblib",),
        help="also write a scikit-learn pipeline beside the model, for other programs "
        "(default: no)")  # fmt: skip
    return result


def main() -> int:
    """Train, save, and say what was done."""
    arguments = parser().parse_args()
    store_path = arguments.store or cli.newest(cli.FEATURES, "*.h5", "extract_features.py")
    model_path = arguments.model or cli.MODELS / f"{store_path.stem}.safetensors"
    from breeds.durable import check_writable
    from breeds.errors import BreedsError
    from breeds.heads import saved
    from breeds.store import Store
    from breeds.train import train

    if arguments.head == "dense" and (arguments.C or arguments.export):
        raise BreedsError("--C and --export belong to --head logistic; leave them out for the dense head.")
    check_writable(model_path)
    model = train(Store.open(store_path), arguments.head, arguments.C, arguments.seed, arguments.val)
    saved.save(model, model_path)
    record = model.record
    print(f"{len(model.classes)} classes; {record['n_train']} photos for training, {record['n_val']} for "
          f"validation, {record['n_test']} kept for testing")  # fmt: skip
    for name in ("unlabelled", "duplicates"):
        if record[name]:
            print(f"{record[name]} {name} left out")
    if arguments.head == "logistic":
        print(f"C = {record['C']:.4g}, chosen by {record['C_chosen_by']}")
    else:
        print(f"best of the epochs: {record['best_epoch']}, validation log loss {record['val_log_loss']:.4f}")
    print(f"on the training photos themselves: accuracy {record['train_accuracy']:.1%}, "
          f"log loss {record['train_log_loss']:.4f}")  # fmt: skip
    print(f"weights {model.recipe.weights} ({model.recipe.weights_sha256[:12]}); {record['seconds']:.1f} s")
    if arguments.export:
        from breeds.heads.export import export_joblib

        export_joblib(model, model_path.with_suffix(".joblib"))
        print(f"wrote {model_path.with_suffix('.joblib')} (scikit-learn; Breeds never loads it)")
    print(f"wrote {model_path}; next: python evaluate.py")
    return 0


if __name__ == "__main__":
    cli.run(main)
