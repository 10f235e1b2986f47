"""Checkpoints as the release's program writes them, for the tests: every tensor by its TensorFlow 1 name."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from lts.config import Config, preset
from lts.reference import release_variables
from lts.training.train import build_model

NETWORKS = {
    "image_size": 16,
    "encoder_widths": "4,8,8,8",
    "conv_1_kernel": 3,
    "conv_1_stride": 2,
    "trunk_widths": "4,8,8,8,8",
    "fc_width": 8,
}
STEP = 5


def tiny(**overrides) -> Config:
    """The release's configuration with tiny networks."""
    return preset("release", **{**NETWORKS, "steps": 8, "batch_size": 4, **overrides})


def variables_of(model: keras.Model) -> dict:
    """Release name to variable of all networks of a model."""
    networks = [getattr(model, name, None) for name in ("encoder", "decoder", "repair", "discriminator")]
    return release_variables(*filter(None, networks), num_strides=model.config.autoencoder.num_strides)


def optimizers_of(model: keras.Model) -> list:
    """One for each player."""
    return [model.optimizer, *([model.g_optimizer] if hasattr(model, "g_optimizer") else [])]


def trained(stage: str, seed: int = 7) -> keras.Model:
    """A tiny model as it stands after some training: every variable, statistic, moment and average is a number."""
    model = build_model(tiny(), stage, 8)
    rng = np.random.default_rng(seed)
    for variable in variables_of(model).values():
        variable.assign(rng.uniform(0.1, 0.5, variable.shape))
    for optimizer in optimizers_of(model):
        optimizer.iterations.assign(STEP)
        for _, *slots in optimizer.slots():
            for slot in slots:
                slot.assign(rng.uniform(0.1, 0.5, slot.shape))
    return model


def tensors_of(model: keras.Model) -> dict[str, np.ndarray]:
    """What the release's program would save of a model, by its names, written down here once more."""
    names = {id(variable): name for name, variable in variables_of(model).items()}
    tensors = {names[id(variable)]: variable.numpy() for variable in variables_of(model).values()}
    for optimizer in optimizers_of(model):
        for variable, *slots in optimizer.slots():
            for suffix, slot in zip(("Adam", "Adam_1", "ExponentialMovingAverage"), slots, strict=True):
                tensors[f"{names[id(variable)]}/{suffix}"] = slot.numpy()
    powers = {f"beta{i}_power": np.float32(beta ** (STEP + 1)) for i, beta in ((1, 0.5), (2, 0.999))}
    return {**tensors, **powers, "global_step": np.int64(STEP)}


def save(tensors: dict[str, np.ndarray], folder: pathlib.Path, name: str = "model.ckpt-4") -> pathlib.Path:
    """Writes a checkpoint as TensorFlow 1's Saver does; returns what the program was told to save to."""
    folder.mkdir(parents=True, exist_ok=True)
    names, empty = list(tensors), [""] * len(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(folder / name), tensor_names=names, shape_and_slices=empty, tensors=list(tensors.values())
    )
    return folder / name
