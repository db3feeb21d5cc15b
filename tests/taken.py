"""What a process does that is to convert a network, where what conversion makes is not the subject."""

import os
import shutil
from pathlib import Path

from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig


def take_network(folder: Path, config: FeatureConfig, weights: Weights) -> None:
    """Take what a conversion has made before: it is in the folder $MADE."""
    (made,) = Path(os.environ["MADE"]).glob(f"xception-{weights.sha256[:16]}-fp32-*")
    shutil.copytree(made, folder, dirs_exist_ok=True)
