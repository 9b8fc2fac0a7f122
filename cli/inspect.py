"""`gdas-tf inspect`: what lies in a data set, and what each preset would take, before anything is started."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.cli import options
from gdas_tf.cli.console import columns, print_result, progress_on_stderr, say, table
from gdas_tf.cli.wording import in_flags
from gdas_tf.config.presets import AT_ANY_SIZE, PRESETS
from gdas_tf.durations import duration
from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    from gdas_tf.data.inspection import Inspection
    from gdas_tf.studies.presets import Estimate

_DESCRIPTION = """\
Reads every image of a data set once and says what is there: sizes, colours, classes and how uneven they are,
files that cannot be read, copies within and across training and test images. Then it times some steps of each
preset on made-up images of that shape, and says what a run would take on this machine. Nothing is trained."""

_EXAMPLES = """\
  gdas-tf inspect photos/
  gdas-tf inspect photos/ --data-image-size 48x64 --picture photos.png
  gdas-tf inspect photos/ --presets none             without the timings, which take minutes
  gdas-tf inspect cifar10 --data-dir ~/tensorflow_datasets --presets small,paper --json
"""

_FIELDS = ("data.data_dir", "data.image_size", "data.image_channels", "data.test_fraction")
_MOST_CLASSES = 30  # that the table shows
_MOST_LINES = 5  # of files, that are shown of each kind
_BAR = 30  # characters of the longest bar


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "inspect", "NAME|FOLDER|FILE.npz", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("data", nargs="?", metavar="NAME|FOLDER|FILE.npz", help="the data set")
    parser.add_argument(
        "--presets",
        metavar="NAMES|none",
        default=",".join(AT_ANY_SIZE),
        help="presets to time [all that take images in their own size]",
    )
    parser.add_argument("--picture", metavar="FILE", help="draw the classes to this file, .png or .svg")
    options.add_fields(parser.add_argument_group("data"), _FIELDS)
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Inspects."""
    from gdas_tf.data.inspection import inspect

    if args.data is None:
        raise UsageError("inspect: name a data set: a folder, an .npz file, digits or a TFDS name")
    if args.picture and Path(args.picture).suffix not in (".png", ".svg"):
        raise UsageError(f"--picture {args.picture}: a picture is a .png or an .svg file")
    presets = _presets(args.presets)
    config = options.resolve_config(args).data
    with progress_on_stderr():
        found = inspect(args.data, config.data_dir)
        size = config.image_size
        shape = found.image_shape((size, size) if isinstance(size, int) else size)
        if shape is not None and config.image_channels:
            shape = (*shape[:2], config.image_channels)
        estimates, why = _estimate(found, shape, presets, config.test_fraction)
        files = {"picture": _draw(found, args.picture)} if args.picture else {}
    result = {
        **found.to_json(),
        "advice": [in_flags(line) for line in found.advice()],
        "image_shape": shape,
        "presets": [
            {**dataclasses.asdict(one), "problem": one.problem and in_flags(one.problem)} for one in estimates
        ],
        "files": files,
    }
    print_result(args.json, result, _text(found, result, estimates, why))
    return 0


def _presets(text: str) -> list[str]:
    names = [] if text.strip().lower() == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PRESETS:
            raise UsageError(f"--presets: found {name!r}; accepted are {', '.join(PRESETS)}, or none")
    return names


def _estimate(
    found: Inspection, shape: tuple[int, int, int] | None, presets: list[str], test_fraction: float
) -> tuple[list[Estimate], str]:
    """Returns what presets take, and why nothing is said of it where nothing is."""
    if not presets:
        return [], ""
    if shape is None:
        return (
            [],
            "what presets take depends on the size of images, which are unequal: give --data-image-size",
        )
    if min(shape[:2]) < 8:
        return [], "what presets take cannot be said, as images are below 8 pixels: give --data-image-size"
    from gdas_tf.studies.presets import estimate

    count = sum(found.counts["train"])
    if "test" not in found.counts:
        count -= round(count * test_fraction)
    say(f"timing some steps of {', '.join(presets)}")
    classes = len(found.class_names)
    estimates = estimate(shape, classes, count, presets, lambda one: say("  ".join(_row(one))))
    return estimates, ""


def _draw(found: Inspection, path: str) -> str:
    from gdas_tf.drawing.data_set import draw_data_set

    images = sum(map(sum, found.counts.values()))
    title = f"{found.name}: {images:,} images of {len(found.class_names)} classes"
    samples = {label: show() for label, show in found.samples.items()}
    draw_data_set(found.class_names, found.counts, found.sizes, samples, title, path)
    return path


def _text(found: Inspection, result: dict[str, Any], estimates: list[Estimate], why: str) -> str:
    blocks = [table(_facts(found, result)), _classes(found)]
    if found.unreadable:
        blocks.append(_listed("cannot be read", [f"{place}: {reason}" for place, reason in found.unreadable]))
    if found.duplicates:
        groups = [", ".join(f"{part} {place}" for part, place, _ in group) for group in found.duplicates]
        blocks.append(_listed("the same pixels", groups))
    if estimates:
        heading = ("preset", "search", "retraining", "memory", "")
        blocks.append(columns([heading, *map(_row, estimates)], right=(1, 2, 3)))
        blocks.append(
            "  estimated of some steps on made-up images; memory without what reading the files takes"
        )
    elif why:
        blocks.append(f"  {why}")
    if result["advice"]:
        blocks.append("\n".join(f"  - {line}" for line in result["advice"]))
    return "\n" + "\n\n".join([*blocks, *(f"  {path}" for path in result["files"].values())]) + "\n"


def _facts(found: Inspection, result: dict[str, Any]) -> list[tuple[str, str] | None]:
    sizes, channels, copies = result["sizes"], result["channels"], result["copies"]
    images = ", ".join(f"{count:,} {part}" for part, count in result["images"].items())
    if "test" not in result["images"]:
        images += "; test images will be drawn of them"
    if sizes["different"] == 1:
        size = f"{_by(sizes['smallest'])} pixels (height x width), all of them"
    else:
        size = (
            f"{sizes['different']:,} different, {_by(sizes['smallest'])} to {_by(sizes['largest'])} pixels "
        )
        size += f"(height x width), median {_by(sizes['median'])}"
    alike = [f"{copies[part]:,} within {part}" for part in result["images"]]
    if "test" in result["images"]:
        alike.append(f"{copies['across']:,} test images among the training images")
    alike.append(f"{copies['other_class']:,} under different classes")
    return [
        ("data", found.name),
        ("images", images),
        ("sizes", size),
        ("colours", ", ".join(f"{count:,} {kind}" for kind, count in channels.items() if count)),
        (
            "classes",
            f"{len(found.class_names)}; the largest has {found.unevenness:.1f} x the images of the smallest",
        ),
        ("unreadable", f"{len(found.unreadable):,}"),
        ("copies", ", ".join(alike)),
    ]


def _classes(found: Inspection) -> str:
    train = found.counts["train"]
    ranked = sorted(range(len(train)), key=lambda label: -train[label])
    rows = [("class", *found.counts, "")]
    most = max(train) or 1
    for label in ranked[:_MOST_CLASSES]:
        bar = "#" * max(round(_BAR * train[label] / most), int(train[label] > 0))
        rows.append((found.class_names[label], *(f"{of[label]:,}" for of in found.counts.values()), bar))
    text = columns(rows, right=range(1, len(rows[0]) - 1))
    more = len(ranked) - _MOST_CLASSES
    return text + (f"\n  and {more} smaller classes" if more > 0 else "")


def _listed(title: str, lines: list[str]) -> str:
    shown = [f"  {title}:", *(f"    {line:.150}" for line in lines[:_MOST_LINES])]
    if len(lines) > _MOST_LINES:
        shown.append(f"    and {len(lines) - _MOST_LINES} more; --json has all")
    return "\n".join(shown)


def _row(one: Estimate) -> tuple[str, ...]:
    if one.problem is not None:
        return one.preset, "-", "-", "-", f"cannot be run: {in_flags(one.problem)}"
    search = "?" if one.search is None else duration(one.search)
    about = "" if one.search is not None else "its strategy does not say how many candidates it trains"
    return one.preset, search, duration(one.training), f"{one.memory / 1024:.1f} GiB", about


def _by(size: list[float]) -> str:
    return "x".join(f"{side:g}" for side in size)
