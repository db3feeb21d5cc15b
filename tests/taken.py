"""What a process does that is to convert a network, where what conversion makes is not the subject."""

import os
import shutil
from pathlib import Path

from breeds.engines.weights import Weights
from breeds.recipe import Recipe


def take_network(folder: Path, recipe: Recipe, weights: Weights) -> None:
    """Take what a conversion has made before: it is in the folder $MADE."""
    (made,) = Path(os.environ["MADE"]).glob(f"xception-{weights.sha256[:16]}-fp32-*")
    shutil.copytree(made, folder, dirs_exist_ok=True)
