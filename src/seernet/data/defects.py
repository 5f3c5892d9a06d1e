"""What is wrong with annotations, by kind: one line for each names files and the remedy."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from seernet.data.listing import shorten

_SHOWN = 200  # characters of one defect: names and values may be of any length


@dataclass
class Defects:
    """Defects by kind.

    Attributes:
        drop: Whether bad boxes are left out, with a warning, instead of refused.
        clip: Whether boxes that reach over the edge are cut there instead.
    """

    drop: bool
    clip: bool = False
    _boxes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _others: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    _notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, bad_boxes: str) -> Defects:
        """None yet, to be handled as `data.bad_boxes` says."""
        return cls(bad_boxes != "refuse", bad_boxes == "clip")

    def box(self, kind: str, file: str, box: object) -> None:
        """A bad box."""
        self._boxes[kind].append(f"{file} {box}"[:_SHOWN])

    def other(self, kind: str, remedy: str, file: str) -> None:
        """A defect that leaving out a box does not mend."""
        self._others[kind, remedy].append(file[:_SHOWN])

    def unless_dropped(self, kind: str, remedy: str, file: str) -> None:
        """A file without which one can go on, where bad boxes are left out too."""
        if self.drop:
            self.note(f"{kind}, and are left out", file)
        else:
            self.other(kind, f"{remedy}, or set data.bad_boxes: drop", file)

    def note(self, kind: str, file: str) -> None:
        """Something to tell the user that stops nothing."""
        self._notes[kind].append(file)

    @property
    def complaints(self) -> list[str]:
        """What must be mended."""
        found = [
            f"{len(files)} {kind}: {shorten(files)}; {remedy}."
            for (kind, remedy), files in self._others.items()
        ]
        if self.drop:
            return found
        return found + [
            f"{len(boxes)} boxes have {kind}: {shorten(boxes)}; correct the annotations, or set "
            "data.bad_boxes: drop to leave them out (clip: to cut those at the edge)."
            for kind, boxes in self._boxes.items()
        ]

    @property
    def warnings(self) -> list[str]:
        """What was handled."""
        notes = [f"{len(files)} {kind}: {shorten(files)}" for kind, files in self._notes.items()]
        if not self.drop:
            return notes
        return notes + [
            f"{len(boxes)} boxes left out, which have {kind}: {shorten(boxes)}"
            for kind, boxes in self._boxes.items()
        ]
