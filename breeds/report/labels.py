"""The labels of a store that are worth a second look, as the report shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from breeds.errors import BreedsError
from breeds.features import Store
from breeds.heads.label_issues import Doubt, NearDuplicate, find_doubts, find_near_duplicates
from breeds.report.album import Photos, out_of

#: How many are shown of each list.
DOUBTS, PAIRS = 24, 12


@dataclass(frozen=True)
class Labels:
    """The labels of a store that are worth a second look, with the rows of their photos."""

    doubts: list[Doubt] = field(default_factory=list)
    pairs: list[NearDuplicate] = field(default_factory=list)
    row_of: dict[str, int] = field(default_factory=dict)
    missing: str = ""

    @staticmethod
    def of(store: Store, found: tuple[list[Doubt], list[NearDuplicate]] | None = None) -> Labels:
        """Look for doubtful labels and near duplicates; where photos are too few, say so."""
        try:
            doubts, pairs = found or (find_doubts(store), find_near_duplicates(store))
        except BreedsError as error:
            return Labels(missing=f"Doubtful labels cannot be looked for: {error}")
        wanted = {doubt.path for doubt in doubts} | {
            path for pair in pairs for path in (pair.path, pair.other_path)
        }
        row_of = {path: row for row, path in enumerate(store.table.path) if path in wanted}
        return Labels(doubts, pairs, row_of)

    @property
    def rows(self) -> list[int]:
        """The rows of the photos that are shown."""
        paths = [doubt.path for doubt in self.doubts[:DOUBTS]]
        paths += [path for pair in self.pairs[:PAIRS] for path in (pair.path, pair.other_path)]
        return [self.row_of[path] for path in paths]

    def shown(self, album: Photos) -> dict[str, Any]:
        """Return what the template shows of them."""
        return {
            "missing": self.missing,
            "doubts": [self._doubt(album, doubt) for doubt in self.doubts[:DOUBTS]],
            "doubts_note": self._doubts_note(),
            "pairs": [self._pair(album, pair) for pair in self.pairs[:PAIRS]],
            "pairs_note": out_of(min(PAIRS, len(self.pairs)), len(self.pairs), "pairs")
            if self.pairs
            else "No two photos of different classes are.",
        }

    def _doubts_note(self) -> str:
        if not self.doubts:
            return (
                "Every photo, those for training too, was judged by a head trained without it; none "
                "contradicts its label."
            )
        shown = out_of(min(DOUBTS, len(self.doubts)), len(self.doubts), "photos")
        return (
            f"{shown}, the most doubtful first. Each was judged by a head trained without it, which gives "
            f"its label less than 5 %. Look, and decide: some are wrong labels, some only odd photos."
        )

    def _doubt(self, album: Photos, doubt: Doubt) -> dict[str, Any]:
        return album.photo(
            self.row_of[doubt.path],
            f"Photo labelled {doubt.label}",
            label=doubt.label,
            label_share=doubt.label_probability,
            suggestion=doubt.suggestion,
            suggestion_share=doubt.suggestion_probability,
        )

    def _pair(self, album: Photos, pair: NearDuplicate) -> dict[str, Any]:
        photos = ((pair.path, pair.label), (pair.other_path, pair.other_label))
        return {
            "similarity": pair.similarity,
            "photos": [
                album.photo(self.row_of[path], f"Photo labelled {label}", label=label)
                for path, label in photos
            ],
        }
