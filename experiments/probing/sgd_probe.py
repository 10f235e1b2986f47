"""Linear probes trained by gradient descent.

Heads are trained over augmented images, with the protocols `rotnet`, `lci` and `stl10_release`. The heads of a model
are a training run of `lts.training` in OUTPUT/training/FINGERPRINT. It resumes bit-exactly and writes TensorBoard
files. Features are never kept; `lts.data` keeps the decoded images in memory or in files.
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from experiments.probing import crops, statistics
from experiments.probing.probe import LayerResult, Probe, ProbeError
from experiments.probing.sgd_heads import HeadsModel
from lts import data, training
from lts.config import Config, ImageConfig
from lts.export import saved_model
from lts.utils.progress import Progress
from lts.utils.signals import reraise_signal

FOLDER = "training"  # of the runs, below the output
STAGE = "linear_probe"
SAMPLES = 8  # images in the picture strip


@dataclasses.dataclass(frozen=True, kw_only=True)
class SgdProbe(Probe):
    """Linear heads on all layers, trained together."""

    kind = "sgd_probe"
    least_images = 1  # none are held out

    def run(self, model, layers: Sequence[str]) -> Iterator[LayerResult]:
        """Train the heads of one model, or resume, and test.

        Raises:
          ProbeError: too few images, or a folder that holds the heads of another run.
          KeyboardInterrupt: stopped by a signal, after a checkpoint.
        """
        began = time.monotonic()
        heads_model = self.fit(model, layers)
        correct = self.evaluate(heads_model, self.image_config(model))
        # All heads are trained in one run, so each is charged an equal part of its time.
        seconds = (time.monotonic() - began) / len(layers)
        for head in heads_model.network.heads:
            record = statistics.accuracy_record(
                correct[head.name], self.protocol, dimensions=head.dimensions, steps=self.total_steps()
            )
            yield LayerResult(head.name, record, seconds)

    def total_steps(self) -> int:
        """Return the steps of a whole run, at least one per epoch."""
        batch_size = self.protocol.training_batch_size
        steps_per_epoch = self.train.num_examples // batch_size
        if steps_per_epoch == 0:
            raise ProbeError(
                f"an epoch must have at least one batch. Received: {self.train.num_examples} training images, "
                f"training_batch_size={batch_size}. Lower --training_batch_size."
            )
        return steps_per_epoch * self.protocol.epochs

    def image_config(self, model) -> ImageConfig:
        """Return size and augmentation of the images."""
        size = self.protocol.image_size or model.image_size
        if self.protocol.augmentation == "pretraining":
            pretraining_image = Config.from_dict(model.description["config"]).image
            return dataclasses.replace(pretraining_image, image_size=size)
        return ImageConfig(image_size=size, flip=True, brightness=0.0, saturation=(1.0, 1.0))

    def fit(self, model, layers: Sequence[str]) -> HeadsModel:
        """Train the heads of one model, or resume.

        Args:
          model: a loaded SavedModel. It is loaded once more, because its moving averages may change.
          layers: names of its layers.

        Returns:
          The trained model.
        """
        image = self.image_config(model)
        steps = self.total_steps()
        workdir = pathlib.Path(self.output) / FOLDER / model.fingerprint
        built: list[HeadsModel] = []

        # NB: the model is built inside `training.run`, after the seed is set: its heads begin with random weights.
        def build() -> HeadsModel:
            backbone = saved_model.load(model.path)
            model.check_unchanged()
            classes = len(self.train.class_names)
            built.append(HeadsModel(backbone, layers, classes, self.protocol, steps, image.image_size))
            return built[0]

        # The backbone is no part of the checkpoint, but its moving averages are.
        def start(heads_model: HeadsModel, restored: bool) -> None:
            if restored:
                heads_model.restore_statistics()

        sample_views = next(iter(self._test_batches(self.train, image, SAMPLES, limit=SAMPLES)))
        task = training.Task(
            record=self._record(model, layers),
            section="gan_training",
            steps=steps,
            build=build,
            batches=functools.partial(self._training_batches, image),
            samples=data.as_signed(sample_views[:, 0]),
            start=start,
            check_data=self.train.check_files,
        )
        print(f"  training heads on {len(layers)} layers, {steps} steps, in {workdir}", flush=True)
        # One device, the first GPU if there is one.
        # NB: a SavedModel that is loaded under a strategy of several devices cannot be called outside of a step.
        strategy = tf.distribute.get_strategy()
        try:
            result = training.run(task, workdir, strategy=strategy)
        except training.TrainingError as error:
            raise ProbeError(str(error).replace("--workdir", "--output")) from None
        # NB: without this half-trained heads would be tested, and written as a finished result.
        reraise_signal(result.signal)
        return built[0]

    def _training_batches(self, image: ImageConfig, share, first_step: int, count: int) -> tf.data.Dataset:
        """Return batches of augmented images and labels."""
        options = {}
        if self.protocol.margin:
            options["crop"] = crops.random_crops(self.protocol.margin)
        return data.training_batches(
            self.train,
            image,
            batch_size=self.protocol.training_batch_size,
            seed=self.protocol.seed,
            first_step=first_step,
            steps=count,
            share=share,
            labels=True,
            **options,
        )

    def _record(self, model, layers: Sequence[str]) -> training.RunRecord:
        """Return the contents of WORKDIR/config.json."""
        # The schedule is recorded as that of stage 2. Another value of anything but "data" is another run.
        config = Config.from_dict(model.description["config"]).replace(
            "gan_training",
            batch_size=self.protocol.training_batch_size,
            steps=self.total_steps(),
            epochs=self.protocol.epochs,
            learning_rate=self.protocol.learning_rate,
            seed=self.protocol.seed,
        )
        details = {"model": model.fingerprint, "layers": list(layers), "classes": len(self.train.class_names)}
        # NB: `RunRecord.data` may change between starts of a run, this may not.
        details["train_fingerprint"] = self.train.fingerprint
        # Through JSON, so that tuples are lists, as when the file is read again.
        fields = json.loads(json.dumps(dataclasses.asdict(self.protocol)))
        details |= {f"protocol.{name}": value for name, value in fields.items()}
        return training.RunRecord.of_images(STAGE, config, self.train, details=details)

    def _test_batches(self, source, image: ImageConfig, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        """Return batches uint8 [<= batch_size, views, size, size, 3]."""
        if self.protocol.margin is None:
            batches = data.test_batches(source, image, batch_size=batch_size, limit=limit)
            return batches.map(functools.partial(tf.expand_dims, axis=1))
        view = crops.fixed_crops(self.protocol.margin, self.protocol.views)
        return data.test_batches(source, image, batch_size=batch_size, limit=limit, view=view)

    def evaluate(self, heads_model: HeadsModel, image: ImageConfig) -> Mapping[str, np.ndarray]:
        """Test trained heads.

        Returns:
          Layer to bool [test images], whether its head is correct.
        """
        # All views of an image are in the same forward pass.
        images_per_batch = max(1, self.batch_size // self.protocol.views)
        predictions: dict[str, list[np.ndarray]] = {layer: [] for layer in heads_model.layer_names}
        with Progress("  test images", self.test.num_examples) as progress:
            for views in self._test_batches(self.test, image, images_per_batch):
                for layer, scores in heads_model.scores(views).items():
                    predictions[layer].append(np.argmax(scores, axis=1))
                progress.advance(len(views))
        return {layer: np.concatenate(classes) == self.test.labels for layer, classes in predictions.items()}
