"""What a run shows: a bar on a terminal or plain lines, TensorBoard, metrics.jsonl, the picture strip."""

import json
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf
import tqdm
from tensorboard.plugins.hparams import api as hparams

from lts import files
from lts.config import SECTIONS, Config, fields_of
from lts.training.pictures import weights_montage

SHOWN = 7  # numbers on a progress line
HISTOGRAM_ENTRIES = 2**16  # of a tensor; larger ones are sampled evenly: TensorBoard needs 240 bytes an entry
ENLARGED = 4  # pixels a side of a weight in the montage


def format_time(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def picture_strip(columns: dict) -> np.ndarray:
    """One picture with an image a row and a kind a column.

    Args:
      columns: name to [B, H, W, 1 or 3] in [-1, 1].

    Returns:
      uint8 [B * (H + 2), kinds * (W + 2), 3], white lines between.
    """
    kinds = []
    for images in columns.values():
        pixels = np.clip((np.asarray(images, np.float32) + 1) * 127.5, 0, 255).round().astype(np.uint8)
        pixels = np.broadcast_to(pixels, (*pixels.shape[:-1], 3))
        kinds.append(np.pad(pixels, ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255))
    return np.concatenate([np.concatenate(row, 1) for row in zip(*kinds, strict=True)], 0)


class Monitor:
    """Writes a run's progress to the terminal, to TensorBoard and to metrics.jsonl.

    Args:
      workdir: folder of the run.
      title: name on the bar.
      first_step: steps done before.
      total_steps: steps in all.
      batch_size: global, for images/s.
    """

    def __init__(self, workdir: pathlib.Path, title: str, first_step: int, total_steps: int, batch_size: int):
        self.workdir, self.title, self.total_steps, self.batch_size = workdir, title, total_steps, batch_size
        self.writer = tf.summary.create_file_writer(str(workdir / "tensorboard"))
        self.metrics_path = workdir / "metrics.jsonl"
        self._drop_lines_after(first_step)
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm.tqdm(total=total_steps, initial=first_step, desc=title, unit="step", dynamic_ncols=True)
        self.restart_clock(first_step)

    def _drop_lines_after(self, step: int) -> None:
        """A resumed run writes the lines after its checkpoint again."""
        if self.metrics_path.exists():
            lines = self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            files.write_text(self.metrics_path, "".join(kept))

    def restart_clock(self, step: int) -> None:
        """Leaves out what came before (compiling, a profile) from images/s."""
        self.marked_step, self.marked_time = step, time.monotonic()

    def configuration(self, config: Config, stage: str) -> None:
        """The configuration: as a text page, and as HParams, by which TensorBoard puts runs in one table."""
        values = {
            f"{section}.{field.name}": getattr(getattr(config, section), field.name)
            for section, field in fields_of(*SECTIONS, stage)
        }
        plain = {name: ",".join(map(str, v)) if isinstance(v, tuple) else v for name, v in values.items()}
        with self.writer.as_default(step=0):
            tf.summary.text("configuration", f"```\n{config.to_json()}\n```")
            hparams.hparams({"preset": config.preset, **plain}, trial_id=str(self.workdir))

    def graph(self, graph: tf.Graph) -> None:
        """The model's graph."""
        with self.writer.as_default(step=0):
            tf.summary.graph(graph)

    def advance(self, steps: int) -> None:
        """Moves the bar."""
        if self.bar is not None:
            self.bar.update(steps)

    def log(self, step: int, values: dict[str, float]) -> None:
        """One line of scalars: to TensorBoard, metrics.jsonl, and the bar or the log."""
        seconds = time.monotonic() - self.marked_time
        rate = (step - self.marked_step) * self.batch_size / max(seconds, 1e-9)
        left = (self.total_steps - step) * self.batch_size / max(rate, 1e-9)
        values = {**values, "images_per_second": rate}
        with self.writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        with self.metrics_path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, **{name: float(value) for name, value in values.items()}}) + "\n")
        shown = " ".join(f"{name}={value:.4g}" for name, value in list(values.items())[:SHOWN])
        if self.bar is not None:
            self.bar.set_postfix_str(f"{rate:.0f} images/s {shown}")
        else:
            progress = f"{self.title} step {step}/{self.total_steps} {rate:.0f} images/s left {format_time(left)}"
            print(f"{progress} {shown}", flush=True)
        self.restart_clock(step)

    def pictures(self, step: int, columns: dict) -> None:
        """The picture strip: to TensorBoard, and pictures/latest.png."""
        strip = picture_strip(columns)
        with self.writer.as_default(step=step):
            tf.summary.image(" | ".join(columns), strip[None])
        files.write_bytes(self.workdir / "pictures" / "latest.png", tf.io.encode_png(strip).numpy())

    def histograms(self, step: int, tensors: dict) -> None:
        """A histogram of each tensor, by name."""
        with self.writer.as_default(step=step):
            for name, values in tensors.items():
                flat = tf.reshape(values, [-1])
                tf.summary.histogram(name, flat[:: -(-flat.shape[0] // HISTOGRAM_ENTRIES)])

    def filters(self, step: int, kernel) -> None:
        """A layer's kernels [k, k, 3, n] side by side, each scaled to its own range (release)."""
        kernel = np.asarray(kernel, np.float32)
        rows = max(r for r in range(1, kernel.shape[-1] + 1) if kernel.shape[-1] % r == 0 and r * r <= kernel.shape[-1])
        picture = weights_montage(kernel, rows, kernel.shape[-1] // rows)
        with self.writer.as_default(step=step):
            tf.summary.image("first kernels", picture.repeat(ENLARGED, 1).repeat(ENLARGED, 2))

    def flush(self) -> None:
        """Puts everything on disk: what lies before a checkpoint must not be lost with the process."""
        self.writer.flush()

    def close(self) -> None:
        """Flushes the event file and ends the bar."""
        self.writer.close()
        if self.bar is not None:
            self.bar.close()
