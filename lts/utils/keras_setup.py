"""Settings of Keras that `import lts` makes, without importing TensorFlow."""

import importlib
import importlib.abc
import importlib.util
import os
import sys

# Modules of the classes that Keras saves by name, apart from `experiments`.
SAVED_CLASSES = {
    "lts.export.feature_extractor": ("FeatureExtractor",),
    "lts.models.autoencoder": ("Autoencoder",),
    "lts.models.classifier": ("RotationPredictor", "SupervisedClassifier"),
    "lts.models.gan": ("DamageRepairGAN",),
    "lts.models.lci": ("TransformationClassifier",),
    "lts.networks.autoencoder": ("Decoder", "Encoder"),
    "lts.networks.backbones.alexnet": ("AlexNet",),
    "lts.networks.backbones.keras_backbone": ("KerasBackbone",),
    "lts.networks.backbones.resnet": ("ResNet18", "ResidualBlock"),
    "lts.networks.critic": ("PatchCritic", "SpectralConv"),
    "lts.networks.discriminator": ("BackboneClassifier", "Discriminator"),
    "lts.networks.layers": ("BatchNorm", "ConvBlock", "GroupedConvBlock", "ScaledTruncatedNormal"),
    "lts.networks.repair": ("RepairLayer", "RepairNetwork"),
    "lts.training.optimizers": ("AdamW", "MomentumSGD", "ReleaseAdam"),
}


def use_tensorflow() -> None:
    """Make Keras use TensorFlow.

    Raises:
      ImportError: Keras was imported with another backend.
    """
    keras = sys.modules.get("keras")
    if keras is None:
        # Keras reads it when it is imported. It goes before the user's keras.json.
        os.environ["KERAS_BACKEND"] = "tensorflow"
    elif keras.config.backend() != "tensorflow":
        raise ImportError(
            f"lts needs the TensorFlow backend of Keras. Received: backend={keras.config.backend()!r}. Import lts "
            "before keras, or set KERAS_BACKEND=tensorflow."
        )


def register_classes() -> None:
    """Let `keras.models.load_model` find the classes of this project, now or when Keras is imported."""
    if "keras" in sys.modules:
        _register(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _KerasImport())


class _SavedClass:
    """Stand-in for a class, which is imported when Keras loads a model."""

    def __init__(self, module: str, name: str):
        self.module = module
        self.name = name

    def from_config(self, config: dict):
        # The import replaces this stand-in in Keras' table.
        return getattr(importlib.import_module(self.module), self.name).from_config(config)


def _register(keras) -> None:
    """Add the classes to Keras' table."""
    table = keras.saving.get_custom_objects()
    for module, names in SAVED_CLASSES.items():
        for name in names:
            table.setdefault(f"lts>{name}", _SavedClass(module, name))


class _KerasImport(importlib.abc.MetaPathFinder):
    """Hook that registers the classes after the first import of Keras.

    Importing Keras takes seconds, because it imports TensorFlow. The flags and `lts.config` do without it.
    """

    def find_spec(self, fullname, path, target=None):
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("keras")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module) -> None:
                execute(module)
                _register(module)

            spec.loader.exec_module = execute_and_register
        return spec
