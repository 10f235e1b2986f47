"""Images whose artifacts are known: what a stage 2 run's networks make of photographs."""

import os

import numpy as np
import tensorflow as tf

from lts import data
from lts.config import Config
from lts.models.gan import DamageRepairGAN
from lts.networks.corruption import draw_keep_mask
from lts.training import imported, run_dir
from lts.training.run_dir import TrainingError


class Corruption:
    """Reconstructs, damages and repairs images with the newest checkpoint of a stage 2 run, in float32.

    Args:
      workdir: of the run.
      keep_probability: a cell is KEPT with this probability; None: the run's own.

    Attributes:
      config: of the run, `keep_probability` in it.
      step: of the checkpoint.
      record: the run's.

    Raises:
      TrainingError: not a stage 2 run, no checkpoint, or networks that were never trained.
      ConfigError: a probability that is none.
    """

    def __init__(self, workdir: str | os.PathLike, keep_probability: float | None = None):
        self.workdir, self.record = workdir, run_dir.read_run_config(workdir)
        if self.record["stage"] != "gan":
            raise TrainingError(f"{workdir} is a run of stage {self.record['stage']!r}: only train_gan repairs images")
        self.config: Config = self.record["config"]
        if keep_probability is not None:
            self.config = self.config.replace(keep_probability=keep_probability)
        size = self.config.image.image_size
        self._gan = DamageRepairGAN(self.config)
        self._gan.build((None, size, size, 3))
        names = ("encoder", "decoder", "repair")
        networks = {name: net for name in names if (net := getattr(self._gan, name)) is not None}
        self.step = run_dir.restore_networks(workdir, **networks)
        self.repairs = self._gan.repair is not None
        lacking = imported.untrained(workdir, self.step, *imported.FROZEN, *(("generator/",) if self.repairs else ()))
        if lacking:
            raise TrainingError(f"{workdir} was imported from a checkpoint without {lacking[0]}, and not trained since")
        self._make = tf.function(self._images, reduce_retracing=True)

    def keep(self, seed: int, first: int, count: int) -> np.ndarray:
        """Keep masks of images number `first` and the next ones, whatever the batch.

        Returns:
          float32 [count, grid, grid, 1], 1 = kept.
        """
        grid = self.config.mask_grid
        uniform = [
            np.random.default_rng([seed, first + row]).random((grid, grid, 1), np.float32) for row in range(count)
        ]
        return draw_keep_mask(np.stack(uniform), self.config.damage.keep_probability).numpy()

    def __call__(self, views: np.ndarray, keep: np.ndarray) -> dict[str, tf.Tensor]:
        """What the networks make of test views.

        Args:
          views: uint8 [B, size, size, 3].
          keep: [B, grid, grid, 1].

        Returns:
          "reconstruction" (what the discriminator learned to call real), "damaged" (decoded without repair; missing
          where the run does not repair) and "repaired": uint8 [B, size, size, 3].
        """
        return self._make(tf.convert_to_tensor(views), tf.convert_to_tensor(keep))

    def _images(self, views, keep):
        features = self._gan.encoder(tf.cast(views, tf.float32) / 127.5 - 1)
        made = {"reconstruction": self._gan.decoder(features), "repaired": self._gan.repaired(features, keep)}
        if self.repairs:
            made["damaged"] = self._gan.damaged(features, keep)
        return {name: data.as_bytes(images) for name, images in made.items()}
