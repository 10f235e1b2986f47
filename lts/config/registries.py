"""Names of what a user can swap, and where each is implemented (ours).

A new entry is a class in one of these modules and a line here, or a class in a module of yours that registers itself:
see "Extend it from outside" in lts/README.md. Imports no TensorFlow.
"""

from lts.utils.registry import Registry

# Subclasses of `FeatureCorruption`.
CORRUPTIONS = Registry(
    "corruption",
    {
        "cell_drop": "lts.networks.corruption:CellDrop",
        "block_drop": "lts.networks.corruption:BlockDrop",
        "channel_drop": "lts.networks.corruption:ChannelDrop",
        "cell_shuffle": "lts.networks.corruption:CellShuffle",
        "cell_swap": "lts.networks.corruption:CellSwap",
    },
)

# Functions of features [B, h, w, c]; their values replace the features of dropped cells.
FILLS = Registry(
    "fill",
    {
        "average": "lts.networks.corruption:local_average",
        "zero": "lts.networks.corruption:zeros",
        "global_average": "lts.networks.corruption:global_average",
    },
)

# Subclasses of `Backbone`. `--backbone=module:function` takes any Keras model, too.
BACKBONES = Registry(
    "backbone",
    {
        "alexnet": "lts.networks.backbones.alexnet:AlexNet",
        "resnet18": "lts.networks.backbones.resnet:ResNet18",
    },
)

# Subclasses of `DiscriminatorTask`. The first two are the method (paper).
TASKS = Registry(
    "task",
    {
        "real_or_fake": "lts.models.tasks:RealFake",
        "mask": "lts.models.tasks:Mask",
        "rotation": "lts.models.tasks:Rotation",
        "joint_turns": "lts.models.tasks:JointTurns",
        "labels": "lts.models.tasks:Labels",
    },
)

# Keras optimizers with the project's additions, see `SharedOptimizer`.
OPTIMIZERS = Registry(
    "optimizer",
    {
        "adam": "lts.training.optimizers:ReleaseAdam",
        "adamw": "lts.training.optimizers:AdamW",
        "sgd": "lts.training.optimizers:MomentumSGD",
    },
)
