"""`NETWORKS`: what can be trained by the name that `retrain.network` gives.

A network is made twice, to be trained and to be deployed, by one function. Importing this module does not
import TensorFlow.

Example:
    >>> def small(genotype, image_shape, classes, *, training=False, channels=36, **options):
    ...     image = keras.Input(image_shape, name="image")
    ...     x = keras.layers.Conv2D(channels, 3, activation="relu", name="conv")(image)
    ...     logits = keras.layers.Dense(classes, name="logits")(keras.layers.GlobalMaxPooling2D()(x))
    ...     if training:
    ...         return keras.Model(image, {"logits": logits})
    ...     return keras.Model(image, keras.layers.Softmax(name="probabilities")(logits))
    >>> NETWORKS.register("small", Network(small, takes_genotype=False))  # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import UsageError
from gdas_tf.registry import Registry

if TYPE_CHECKING:
    import keras

    from gdas_tf.spaces.genotype import Genotype


@dataclasses.dataclass(frozen=True)
class Network:
    """A kind of network.

    Args:
        build: a function of (genotype, image_shape, classes, *, training, **options) that returns a
            keras.Model of `image`, float32 [B, H, W, C] in [0, 1]. With `training` the model gives
            {"logits": float32 [B, classes]} and perhaps "auxiliary" of that shape; without, probabilities
            float32 [B, classes]. Layers with weights have the same names in both. The options are those of
            `gdas_tf.networks.derived.build_network`; a function may pass over what it has no use for.
        takes_genotype: whether it needs a genotype; without, `genotype` is what the run has, or None.
    """

    build: Callable[..., keras.Model]
    takes_genotype: bool = True


NETWORKS: Registry[Network] = Registry("network")
"""The networks by name. A file of its own makes a `Network` and registers it here."""


def build(
    name: str,
    genotype: Genotype | None,
    image_shape: Sequence[int],
    classes: int,
    *,
    training: bool = False,
    **options: Any,
) -> keras.Model:
    """Builds a network, and makes sure that it gives what it must.

    Args:
        name: one of `NETWORKS`.
        genotype, image_shape, classes, training, options: what its function takes, see `Network`.

    Raises:
        UsageError: there is no network of that name, it needs a genotype, cannot be built, or gives something
            else.
    """
    network = NETWORKS.get(name)
    if network.takes_genotype and genotype is None:
        raise UsageError(f"network {name}: it is built of a genotype, and there is none; derive one first")
    try:
        model = network.build(genotype, image_shape, classes, training=training, **options)
        outputs = model.output if training else {"probabilities": model.output}
        shapes = {key: tuple(value.shape) for key, value in outputs.items()}
    except UsageError:
        raise
    except Exception as error:  # Keras has no error of its own, and networks may be a user's
        raise UsageError(
            f"network {name}: a network of {options.get('channels', 'its own')} channels (retrain.channels) "
            f"for images of {'x'.join(map(str, image_shape))} (data.image_size) cannot be built: "
            f"{' '.join(str(error).split()):.200}"
        ) from error
    wanted = "logits" if training else "probabilities"
    if wanted not in shapes or any(shape != (None, classes) for shape in shapes.values()):
        raise UsageError(
            f"network {name}: {'to be trained' if training else 'deployed'}, it gives {shapes}; it must give "
            f"{wanted} of shape {(None, classes)}"
        )
    return model


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of a trained network into the deployed one of the same kind and options.

    Raises:
        UsageError: a layer of the deployed network is not in the other, or has other weights there.
    """
    trained = {layer.name: layer for layer in source.layers}
    for layer in target.layers:
        if not layer.weights:
            continue
        wanted = _shapes(layer)
        found = _shapes(trained[layer.name]) if layer.name in trained else "no such layer"
        if found != wanted:
            raise UsageError(
                f"layer {layer.name}: the deployed network has weights of shapes {wanted}, the one that was "
                f"trained has {found}; give the layers of both the same names and sizes"
            )
        layer.set_weights(trained[layer.name].get_weights())


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]


def _derived(*arguments: Any, **options: Any) -> keras.Model:
    from gdas_tf.networks.derived import build_network

    return build_network(*arguments, **options)


NETWORKS.register("derived", Network(_derived))

for _module in ("gdas_tf.networks.resnet", "gdas_tf.networks.densenet"):
    importlib.import_module(_module)
