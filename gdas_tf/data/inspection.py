"""What lies in a labelled data set, found out by reading every image once, before anything is trained."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gdas_tf.data.sources.base import Picture, Show, Source
from gdas_tf.data.sources.opening import open_source
from gdas_tf.data.wording import by, listing

_ANY_SIZE = (8, 8)  # nothing is resized here; with a size, a source does not ask for equal ones
_UNEVEN = 3.0  # how many times as large the largest class is as the smallest, to be called uneven
_FEW = 20  # training images of a class below which little can be learned


@dataclass
class Inspection:
    """What lies in a data set.

    Attributes:
        name: the name to show.
        class_names: a name per label.
        counts: images of each class, of the parts `train` and, where there are test images apart, `test`;
            those that cannot be read count, too.
        sizes: how many images there are of each (height, width).
        channels: how many images are grey, 1, and of colours, 3.
        unreadable: (place, reason) of the images that cannot be read.
        duplicates: groups of images of the same pixels, each a list of (part, place, label).
        samples: for each class with a readable image, how to get the first one.
    """

    name: str
    class_names: tuple[str, ...]
    counts: dict[str, list[int]]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[list[tuple[str, str, int]]] = field(default_factory=list)
    samples: dict[int, Show] = field(default_factory=dict)

    @property
    def unevenness(self) -> float:
        """How many times as many training images the largest class has as the smallest."""
        counts = [count for count in self.counts["train"] if count]
        return max(counts) / min(counts)

    def image_shape(self, image_size: tuple[int, int] | None = None) -> tuple[int, int, int] | None:
        """Returns height, width and channels that a training would have, None if the sizes are unequal.

        Args:
            image_size: what images are resized to; None keeps their own size.
        """
        size = image_size or (next(iter(self.sizes)) if len(self.sizes) == 1 else None)
        return (*size, 3 if self.channels[3] else 1) if size else None

    def copies(self) -> dict[str, int]:
        """Returns how many images are copies of others: `train` (of another training image), `test` (of
        another test image), `across` (test images that are training images, too), and `other_class` (groups
        of the same pixels under different labels)."""
        found = {"train": 0, "test": 0, "across": 0, "other_class": 0}
        for group in self.duplicates:
            parts = Counter(part for part, _, _ in group)
            for part in parts:
                found[part] += parts[part] - 1
            found["across"] += parts["test"] if parts["train"] else 0
            found["other_class"] += len({label for _, _, label in group}) > 1
        return found

    def advice(self) -> list[str]:
        """Returns what to do about what was found, a line each; fields by their dotted names."""
        lines = []
        if len(self.sizes) > 1:
            lines.append(
                f"the images have {len(self.sizes)} sizes: give one by data.image_size, as "
                f"{self._size_to_take()}"
            )
        elif self.sizes and min(next(iter(self.sizes))) < 8:
            lines.append("the images are below 8 pixels: enlarge them by data.image_size")
        if self.unreadable:
            lines.append(f"{_number(len(self.unreadable), 'image')} cannot be read: repair or remove them")
        if self.unevenness >= _UNEVEN:
            lines.append(
                f"the classes are uneven ({self.unevenness:.1f} to 1): data.balance, weights or sampler, "
                "makes rare ones count as much; judge by the balanced accuracy"
            )
        few = [name for name, n in zip(self.class_names, self.counts["train"], strict=True) if 0 < n < _FEW]
        if few:
            lines.append(f"fewer than {_FEW} training images of {listing(few)}: get more of them")
        empty = [name for name, n in zip(self.class_names, self.counts["train"], strict=True) if not n]
        if empty:
            lines.append(f"no training image of {listing(empty)}")
        return lines + self._advice_on_copies()

    def _advice_on_copies(self) -> list[str]:
        copies, lines = self.copies(), []
        if copies["across"]:
            lines.append(
                f"{_number(copies['across'], 'test image')} among the training images: the accuracy will be "
                "too high; remove them"
            )
        elif copies["train"] and "test" not in self.counts:
            lines.append(
                f"{_number(copies['train'], 'copy', 'copies')} of other images: when test images are drawn, "
                "some will be among the training images; remove the copies"
            )
        if copies["other_class"]:
            lines.append(
                f"{_number(copies['other_class'], 'image')} with copies under different classes: a label is "
                "wrong"
            )
        return lines

    def _size_to_take(self) -> str:
        """A small size of about the shape of most images: 32 pixels high or wide at least, in steps of 8."""
        heights, widths = np.array(list(self.sizes.elements())).T
        ratio = float(np.median(widths / heights))
        height, width = (32, round(4 * ratio) * 8) if ratio >= 1 else (round(4 / ratio) * 8, 32)
        return by((height, width)) if height != width else str(height)

    def to_json(self) -> dict[str, Any]:
        """Returns everything in plain JSON types."""
        sides = np.array(list(self.sizes.elements()) or [(0, 0)])
        return {
            "name": self.name,
            "images": {part: sum(counts) for part, counts in self.counts.items()},
            "classes": {
                name: {part: counts[label] for part, counts in self.counts.items()}
                for label, name in enumerate(self.class_names)
            },
            "unevenness": self.unevenness,
            "sizes": {
                "different": len(self.sizes),
                "smallest": sides.min(0).tolist(),
                "median": np.median(sides, 0).tolist(),
                "largest": sides.max(0).tolist(),
                "most_frequent": [[*size, count] for size, count in self.sizes.most_common(5)],
            },
            "channels": {"grey": self.channels[1], "colour": self.channels[3]},
            "unreadable": [{"place": place, "reason": reason} for place, reason in self.unreadable],
            "copies": self.copies(),
            "duplicates": [
                [
                    {"part": part, "place": place, "class": self.class_names[label]}
                    for part, place, label in group
                ]
                for group in self.duplicates
            ],
            "advice": self.advice(),
        }


def inspect(name: str, data_dir: str | Path | None = None) -> Inspection:
    """Reads every image of a data set once, and says what is there.

    Args:
        name: as of `gdas_tf.data.dataset.load_dataset`.
        data_dir: folder of prepared TFDS sets.

    Raises:
        UsageError: there is no such set, or its folders are no classes.
        RunError: it cannot be downloaded.
    """
    source = open_source(name, data_dir, _ANY_SIZE, 3)
    parts = ["train", *(["test"] if source.test else [])]
    found = Inspection(
        source.name, source.class_names, {part: [0] * len(source.class_names) for part in parts}
    )
    places: dict[tuple[tuple[int, int], int], list[tuple[str, str, int]]] = defaultdict(list)
    for part, picture in _pictures(source):
        if 0 <= picture.label < len(source.class_names):
            found.counts[part][picture.label] += 1
        if picture.problem is not None or picture.size is None:
            found.unreadable.append((picture.place, picture.problem or "unknown"))
            continue
        found.sizes[picture.size] += 1
        found.channels[picture.channels] += 1
        places[picture.size, picture.hash].append((part, picture.place, picture.label))
        if picture.show is not None:
            found.samples.setdefault(picture.label, picture.show)
    found.duplicates = [group for group in places.values() if len(group) > 1]
    return found


def _pictures(source: Source) -> Iterator[tuple[str, Picture]]:
    """All images with the name of their part, with a progress bar."""
    parts: Iterable[tuple[str, Any]] = (("train", source.train), ("test", source.test))
    total = sum(part.count for _, part in parts if part)
    with tqdm(total=total, desc=f"Looking at {source.name}", unit=" images", delay=1, disable=None) as bar:
        for name, part in parts:
            for picture in part.pictures() if part else ():
                yield name, picture
                bar.update()


def _number(count: int, word: str, plural: str | None = None) -> str:
    return f"{count:,} {word if count == 1 else plural or f'{word}s'}"
