"""Training steps for benchmarks; their operations and memory traffic, counted in the graph."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from lts import config as configs
from lts.config.stages import section_of

# Operations that move nothing: names, shapes, constants, and variables that their consumers read.
FREE = frozenset(
    [
        *("Const", "Identity", "IdentityN", "NoOp", "Placeholder", "PreventGradient", "StopGradient"),
        *("ExpandDims", "Reshape", "Squeeze", "Shape", "ShapeN", "BroadcastGradientArgs"),
        *("ReadVariableOp", "VarHandleOp"),
    ]
)
# Operations on variables: reads and writes of the variables, in sizes of the last input.
VARIABLE_PASSES = {
    "ResourceApplyAdam": 6,  # the weight and both moments
    "ResourceApplyGradientDescent": 2,
    "AssignAddVariableOp": 2,
    "AssignSubVariableOp": 2,
    "AssignVariableOp": 1,
}


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step on one fixed batch.

    Attributes:
      model: of a stage.
      graph: of the step.
      run: runs one step and waits for it.
    """

    model: Any
    graph: Any
    run: Callable[[], Any]


def build_step(preset: str, stage: str, precision: str, batch_size: int, image_size: int = 0) -> Step:
    """Return a training step that has not run yet.

    Args:
      preset: name of the configuration.
      stage: "autoencoder" or "gan".
      precision: "float32" or "bfloat16".
      batch_size: images.
      image_size: pixels per side; 0: the preset's.
    """
    import tensorflow as tf

    from lts.training.train import build_model, steps_done

    changes = {"precision": precision, "batch_size": batch_size}
    if image_size:
        changes["image_size"] = image_size
    config = configs.preset(preset, section_of(stage), **changes)
    model = build_model(config, stage, 1000)
    size = config.image.image_size
    images = tf.random.uniform([batch_size, size, size, 3], -1, 1)
    function = tf.function(model.train_step)
    graph = function.get_concrete_function(images).graph

    def run():
        function(images)
        return steps_done(model)  # waits for the step

    return Step(model, graph, run)


def layer_gflop(graph) -> float:
    """Return the GFLOP of convolutions and matrix products."""
    return sum(operations(op) for op in needed(graph)) / 1e9


def needed(graph) -> Iterator[Any]:
    """Iterate over the operations that an output or a side effect depends on; TensorFlow prunes the others."""
    names = set()
    waiting = [op for op in graph.get_operations() if op._is_stateful]
    waiting += [tensor.op for tensor in graph.outputs]
    while waiting:
        op = waiting.pop()
        if op.name not in names:
            names.add(op.name)
            waiting += [tensor.op for tensor in op.inputs]
            waiting += op.control_inputs
    return (op for op in graph.get_operations() if op.name in names)


def operations(op) -> int:
    """Return the operations of one node.

    A multiply-add counts as 2. Everything but convolutions and products with a kernel counts as 0, also the products of
    bilinear doubling.
    """
    if op.type == "MatMul":
        inner = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
        return 2 * op.outputs[0].shape.num_elements() * inner
    if op.type == "Conv2D":
        kernel = op.inputs[1].shape
        output = op.outputs[0].shape
    elif op.type == "Conv2DBackpropInput":
        kernel = op.inputs[1].shape
        output = op.inputs[2].shape
    elif op.type == "Conv2DBackpropFilter":
        kernel = op.outputs[0].shape
        output = op.inputs[2].shape
    else:
        return 0
    # Both gradients of a convolution have as many operations as the convolution.
    height, width, input_channels, _ = kernel.as_list()
    return 2 * output.num_elements() * height * width * input_channels


def moved_bytes(op) -> int:
    """Return the bytes that one node reads and writes, if it is not fused with others.

    Tensors whose shape the graph does not know count as 0. They are small: scalars, and outputs that nothing reads.
    """
    if op.type in FREE:
        return 0
    passes = VARIABLE_PASSES.get(op.type, 0)
    return sum(map(_size, [*op.inputs, *op.outputs])) + (passes * _size(op.inputs[-1]) if passes else 0)


def _size(tensor) -> int:
    """Return the bytes of a tensor, 0 for a handle or an unknown shape."""
    return tensor.shape.num_elements() * tensor.dtype.size if tensor.shape.is_fully_defined() else 0


def estimated_seconds(graph, flops: float, bandwidth: float) -> float:
    """Return the seconds of a step in which each operation is limited by arithmetic or by memory.

    Args:
      graph: of the step.
      flops: operations per second of the device.
      bandwidth: bytes per second of its memory.
    """
    return sum(max(operations(op) / flops, moved_bytes(op) / bandwidth) for op in needed(graph))
