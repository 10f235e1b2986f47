"""Fine-tuning of the backbone of a SavedModel.

The backbone gets a new head and is trained on labels. The upper reference is the same from random weights.
"""

import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.probing import statistics
from experiments.probing.probe import LayerResult, Probe, ProbeError
from lts import data, training
from lts.config import Config, ConfigError, ImageConfig, TrainingConfig
from lts.export.saved_model import LoadedModel
from lts.utils.progress import Progress
from lts.utils.signals import reraise_signal

FOLDER = "training"  # of the runs, below the output


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneProbe(Probe):
    """Fine-tuning of whole models.

    Its protocol is a `FinetuneProtocol`. Its one "layer" in the results tells what was done to the model. Every model
    and seed is a training run in OUTPUT/training, which resumes.
    """

    kind = "finetune"

    def choose_layers(self, models: Sequence[LoadedModel], requested: Sequence[str]) -> list[str]:
        """Check the models, and return the only column.

        Raises:
          ProbeError: fewer training images than a batch.
          ConfigError: a model has fewer layers than are to be trained.
          ExportError: a model has no backbone.
        """
        if self.train.num_examples < self.protocol.batch_size:
            raise ProbeError(
                f"an epoch must have at least one batch. Received: {self.train.num_examples} training images, "
                f"batch_size={self.protocol.batch_size}. Lower --batch_size or give more images."
            )
        # Build every model now: a fault of the last one would otherwise be found after hours of training.
        for model in models:
            if self._frozen(model) < 0:
                raise ConfigError(
                    f"train_layers must be at most {len(model.layers)}, the layers of {model.path}. "
                    f"Received: train_layers={self.protocol.train_layers}"
                )
            model.keras_model()
        return ["fine-tuned" if self.protocol.pretrained else "from scratch"]

    def describe(self, model: LoadedModel) -> Mapping[str, Any]:
        """Return the description of a model, from scratch its configuration."""
        if self.protocol.pretrained:
            return model.description
        kept = {key: model.description[key] for key in ("image_size", "test_crop", "config")}
        return {"weights": "from scratch", **kept}

    def run(self, model: LoadedModel, layers: Sequence[str]) -> Iterator[LayerResult]:
        """Train one model with every seed, or resume, and test.

        Raises:
          TrainingError: see `lts.training.train`.
          KeyboardInterrupt: stopped by a signal, after a checkpoint.
        """
        began = time.monotonic()
        strategy = training.build_strategy()
        correct = []  # bool [test images] of each seed
        for seed in self.protocol.seeds:
            self._train(model, seed, strategy)
            correct.append(self._test(model, seed))
        if len(correct) == 1:
            record = statistics.accuracy_record(correct[0], self.protocol)
        else:
            record = statistics.mean_record([float(values.mean()) for values in correct], self.protocol)
        for layer in layers:
            yield LayerResult(layer, record, time.monotonic() - began)

    def workdir(self, model: LoadedModel, seed: int) -> pathlib.Path:
        """Return the folder of a training run."""
        return pathlib.Path(self.output) / FOLDER / f"{model.fingerprint}_{seed}"

    def training_config(self, model: LoadedModel, seed: int) -> Config:
        """Return the configuration of one run.

        Networks and images are the model's. Losses and schedule are the protocol's.
        """
        schedule = TrainingConfig(
            batch_size=self.protocol.batch_size,
            epochs=self.protocol.epochs,
            optimizer=self.protocol.optimizer,
            learning_rate=self.protocol.learning_rate,
            precision=self.protocol.precision or model.config.gan_training.precision,
            seed=seed,
            ema_decay=0.0,
        )
        # Losses of pre-training stay in the configuration; a classifier reads only the weight decay.
        loss = dataclasses.replace(model.config.loss, weight_decay=self.protocol.weight_decay)
        return dataclasses.replace(model.config, loss=loss, gan_training=schedule)

    def _frozen(self, model: LoadedModel) -> int:
        """Return the number of first layers that do not train."""
        trained = self.protocol.train_layers
        return 0 if trained is None else len(model.layers) - trained

    def _train(self, model: LoadedModel, seed: int, strategy) -> None:
        """Train to the end, or resume."""
        workdir = self.workdir(model, seed)
        # `lts.training` accepts other images of the same name, such as a larger folder. Here they change the figures.
        if (workdir / "config.json").exists():
            trained_on = training.read_run_config(workdir).data or {}
            if trained_on.get("fingerprint") != self.train.fingerprint:
                raise ProbeError(
                    f"{workdir} was trained on other images. Received: {self.train.name}, split {self.train.split!r}. "
                    "Give another --output."
                )
        print(f"  training with seed {seed} in {workdir}", flush=True)
        result = training.train(
            self.training_config(model, seed),
            "supervised",
            self.train,
            workdir,
            features=model if self.protocol.pretrained else None,
            head=self.protocol.head,
            frozen=self._frozen(model),
            strategy=strategy,
        )
        # NB: without this a half-trained model would be tested, and written as a finished result.
        reraise_signal(result.signal)

    def _test(self, model: LoadedModel, seed: int) -> np.ndarray:
        """Return whether the trained classifier is correct, bool [test images]."""
        classifier = training.load_classifier(self.workdir(model, seed))
        image = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
        predictions = []
        with Progress("  test images", self.test.num_examples) as progress:
            for images in data.test_batches(self.test, image, batch_size=self.batch_size):
                predictions.append(tf.argmax(classifier(images), 1).numpy())
                progress.advance(len(images))
        return np.concatenate(predictions) == self.test.labels
