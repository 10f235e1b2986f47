"""Images with known artifacts from a trained run."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from lts import data
from lts.config import Config
from lts.config.stages import STAGES
from lts.models.gan import DamageRepairGAN
from lts.training import run_dir
from lts.training.checkpoints import TrainingError
from lts.training.run_record import FROZEN_NETWORKS

LEVELS = 128  # keep probabilities at which masks are drawn to order the cells


class Corruption:
    """Reconstruction, damage and repair of photographs.

    The networks are those of the newest checkpoint of a `train_gan` run, in float32.

    Args:
      workdir: of the run.
      keep_probability: a cell is KEPT with this probability; None: the run's.

    Attributes:
      workdir: of the run.
      config: of the run, with `keep_probability`.
      step: of the checkpoint.
      record: content of the run's config.json.

    Raises:
      TrainingError: not a run of `train_gan`, no checkpoint, or networks that were never trained.
      ConfigError: `keep_probability` is outside [0, 1], or the run's corruption is not registered.
    """

    def __init__(self, workdir: str | os.PathLike, keep_probability: float | None = None):
        self.workdir = workdir
        self.record = run_dir.read_run_config(workdir)
        if self.record.stage not in STAGES or not STAGES[self.record.stage].adversarial:
            raise TrainingError(f"{workdir} is a run of stage {self.record.stage!r}: only train_gan repairs images")
        self.config: Config = self.record.config
        if keep_probability is not None:
            self.config = self.config.replace(keep_probability=keep_probability)
        with run_dir.naming_imports(workdir):
            # The task of labels, where the run has it, needs the number of classes.
            self._gan = DamageRepairGAN(self.config, len(self.record.details.get("classes", ())))
        networks = {"encoder": self._gan.encoder, "decoder": self._gan.decoder}
        needed = list(FROZEN_NETWORKS)
        # A run with `repair` off decodes damaged features directly.
        self._repairs = self._gan.repair is not None
        if self._repairs:
            networks["repair"] = self._gan.repair
            needed.append("generator/")
        # The discriminator is not restored: the export under test plays its part.
        self.step = run_dir.restore_networks(workdir, **networks)
        untrained = self.record.untrained(self.step, *needed)
        if untrained:
            raise TrainingError(
                f"{workdir} was imported from a checkpoint without {untrained[0]}, and not trained since"
            )
        self._render = tf.function(self._corrupt, reduce_retracing=True)
        self._render_repaired = tf.function(self._repair, reduce_retracing=True)

    @property
    def group_size(self) -> int:
        """Number of consecutive images that need each other."""
        return self._gan.corruption.group_size

    def draw(self, seed: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the keep masks of consecutive images, and the numbers that they are drawn from.

        The corruption is that of training. An image's numbers depend on the seed and on its number alone, not on the
        batch.

        Returns:
          float32 [count, grid, grid, 1], 1 = kept, and float32 [count, grid, grid, n] in [0, 1).
        """
        # One generator per image, so that the batch size changes nothing.
        grid = self.config.mask_grid
        corruption = self._gan.corruption
        numbers = corruption.numbers_per_cell(self.config.autoencoder.encoder_filters[-1])
        uniform = np.empty([count, grid, grid, numbers], np.float32)
        for row in range(count):
            uniform[row] = np.random.default_rng([seed, first + row]).random(uniform.shape[1:], np.float32)
        return corruption.draw(uniform, grid).numpy(), uniform

    def exact_masks(self, uniform: np.ndarray, dropped: Sequence[int]) -> np.ndarray:
        """Return keep masks with exact numbers of dropped cells.

        An image's cells are dropped in the order in which the corruption drops them while the keep probability falls
        from 1 to 0. Cells that fall together, such as those of a block, are dropped in the order of their numbers.

        Args:
          uniform: [B, grid, grid, n], of `draw`.
          dropped: numbers of cells to drop, from 0 to grid * grid.

        Returns:
          float32 [numbers, B, grid, grid, 1], 1 = kept. A larger number drops the cells of a smaller one, too.
        """
        grid = self.config.mask_grid
        count = len(uniform)
        kind = type(self._gan.corruption)
        kept_levels = np.zeros([count, grid * grid])
        for level in range(LEVELS):
            damage = dataclasses.replace(self.config.damage, keep_probability=(level + 0.5) / LEVELS)
            kept_levels += kind(damage).draw(uniform, grid).numpy().reshape(count, -1)
        first_numbers = uniform[..., 0].reshape(count, -1)
        order = np.lexsort([first_numbers, kept_levels], axis=-1)  # [B, cells], the first dropped cell first
        places = np.argsort(order, axis=-1)  # of each cell in that order
        masks = [places >= number for number in dropped]
        return np.stack(masks).astype(np.float32).reshape(len(dropped), count, grid, grid, 1)

    def __call__(self, views: np.ndarray, keep_mask: np.ndarray, uniform: np.ndarray) -> dict[str, tf.Tensor]:
        """Return the corrupted images of test views.

        Args:
          views: uint8 [B, size, size, 3].
          keep_mask: [B, grid, grid, 1], of `draw`.
          uniform: [B, grid, grid, n], of `draw`.

        Returns:
          "reconstruction" (what the discriminator learned to call real), "repaired", and "damaged" (decoded without
          repair; missing where the run does not repair): uint8 [B, size, size, 3].
        """
        return self._render(*map(tf.convert_to_tensor, (views, keep_mask, uniform)))

    def repaired(self, views: np.ndarray, keep_mask: np.ndarray, uniform: np.ndarray) -> tf.Tensor:
        """Return the repaired images alone; arguments as those of a call."""
        return self._render_repaired(*map(tf.convert_to_tensor, (views, keep_mask, uniform)))

    def _repair(self, views, keep_mask, uniform):
        features = self._gan.encoder(data.as_signed(views))
        return data.as_bytes(self._gan.repaired(features, keep_mask, uniform=uniform))

    def _corrupt(self, views, keep_mask, uniform):
        features = self._gan.encoder(data.as_signed(views))
        repaired = self._gan.repaired(features, keep_mask, uniform=uniform)
        images = {"reconstruction": self._gan.decoder(features), "repaired": repaired}
        if self._repairs:
            images["damaged"] = self._gan.damaged(features, keep_mask, uniform)
        return {kind: data.as_bytes(signed) for kind, signed in images.items()}
