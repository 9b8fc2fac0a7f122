"""What the presets change of the defaults, which are the constants of the paper (arXiv 1910.04465)."""

from __future__ import annotations

from typing import Any

# What a preset changes of the paper's constants.
PRESETS: dict[str, dict[str, Any]] = {
    # Digits in minutes on two cores. The architecture learns faster than in the paper, because there are
    # 300 steps instead of 98,000; a digit is no longer itself when mirrored or moved by half its width.
    "quick": {
        "data.name": "digits",
        "data.padding": 1,
        "data.flip": False,
        "search.epochs": 30,
        "search.channels": 16,
        "search.cells": 1,
        "search.weight_learning_rate": 0.1,
        "search.architecture_learning_rate": 0.05,
        "retrain.epochs": 40,
        "retrain.batch_size": 64,
        "retrain.channels": 12,
        "retrain.cells": 1,
        "retrain.learning_rate": 0.05,
        "retrain.drop_path": 0.0,
        "retrain.auxiliary_weight": 0.0,
        "retrain.cutout": 0,
    },
    # CIFAR-10 on a CPU in an hour or two.
    "small": {
        "search.epochs": 6,
        "search.cells": 1,
        "search.weight_learning_rate": 0.05,
        "search.architecture_learning_rate": 0.01,
        "retrain.epochs": 10,
        "retrain.channels": 16,
        "retrain.cells": 1,
        "retrain.drop_path": 0.0,
        "retrain.cutout": 8,
    },
    # Any data: a supernet proposes, short trainings choose (docs/strategies.md, robust). Sizes as of `small`.
    "robust": {
        "search.strategy": "robust",
        "search.epochs": 20,
        "search.cells": 1,
        "search.weight_learning_rate": 0.05,
        # All candidates see the same images of D_V; on all of a large D_V, to judge 300 of them takes hours.
        "robust.validation_images": 1024,
        "robust.epochs": (2, 6),
        "robust.learning_rate": 0.1,
        "retrain.epochs": 10,
        "retrain.channels": 16,
        "retrain.cells": 1,
        "retrain.drop_path": 0.0,
        "retrain.cutout": 8,
    },
    # CIFAR-10 with the constants of the paper, which are the defaults of the fields.
    "paper": {},
    # Two recipes that differ from the paper's; docs/method.md says what is known of each, and from where.
    # The study that this project began as (G. Nalbandyan, 2020).
    "seed": {
        "search.batch_size": 196,
        "search.weight_decay": 5e-4,
        "search.weight_schedule": "epoch",
        "search.unsampled": "decayed",
        "derive.rule": "pairs",
        "retrain.epochs": 300,
        "retrain.head_norm": True,
        "retrain.schedule": "epoch",
        "retrain.weight_decay": 5e-4,
        "retrain.clip_norm": 0.0,
        "retrain.drop_path": 0.0,
    },
    # AutoDL-Projects, the authors' code of 2020.
    "autodl": {
        "search.batch_size": 256,
        "search.macro": "autodl",
        "search.weight_decay": 5e-4,
        "search.weight_schedule": "epoch",
        "search.unsampled": "decayed",
        "derive.rule": "pairs",
        "retrain.epochs": 300,
        "retrain.batch_size": 256,
        "retrain.channels": 33,
        "retrain.macro": "autodl",
        "retrain.head_norm": True,
        "retrain.schedule": "epoch",
        "retrain.weight_decay": 5e-4,
        "retrain.clip_norm": 0.0,
        "retrain.drop_path": 0.0,
    },
    # The retraining of both papers on ImageNet (docs/scale.md): the constants of DARTS' code for it. The C of
    # 50 is what the authors of GDAS gave GDAS_V1 (52 GDAS_F1); DARTS' paper has 48.
    "imagenet": {
        "data.image_size": 224,
        "data.crop": "resized",
        "data.colour_jitter": (0.4, 0.4, 0.4, 0.2),
        "retrain.epochs": 250,
        "retrain.batch_size": 128,
        "retrain.channels": 50,
        "retrain.cells": 4,
        "retrain.label_smoothing": 0.1,
        "retrain.learning_rate": 0.1,
        "retrain.schedule": "exponential",
        "retrain.learning_rate_factor": 0.97,
        "retrain.nesterov": False,
        "retrain.weight_decay": 3e-5,
        "retrain.auxiliary_weight": 0.4,
        "retrain.drop_path": 0.0,
        "retrain.cutout": 0,
    },
}

AT_ANY_SIZE = tuple(name for name, changes in PRESETS.items() if "data.image_size" not in changes)
"""The presets that take images in the size that they have."""
