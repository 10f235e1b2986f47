"""What a run shows: a bar on a terminal or plain lines, TensorBoard, metrics.jsonl, the picture strip."""

import contextlib
import json
import os
import pathlib
import re
import sys
import time

import tensorflow as tf
import tqdm
from tensorboard.plugins.hparams import api as hparams

from lts.config import SECTIONS, Config, fields_of
from lts.data import as_bytes
from lts.utils import files
from lts.visualization.montage import filter_montage, montage

SHOWN = 7  # numbers on a progress line
HISTOGRAM_ENTRIES = 2**16  # of a tensor; larger ones are sampled: TensorBoard needs 240 bytes an entry
ENLARGED = 8  # pixels a side of a weight in the montage
FLUSH_SECONDS = 10  # what is older is on disk, for a TensorBoard that looks on
GROUPS = ("accuracy", "gradient_norm", "learning_rate", "images_per_second")  # of scalars; the others are losses


def format_time(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def scalar_tag(name: str) -> str:
    """A scalar's name in TensorBoard, whose pages group by what stands before the slash: mask becomes loss/mask."""
    return f"{next((group for group in GROUPS if group in name), 'loss')}/{name}"


def histogram_sample(values):
    """Entries of a tensor, flat: all of a small one; of a large one some spread over it, its least and its greatest."""
    flat = tf.reshape(values, [-1])
    if flat.shape[0] <= HISTOGRAM_ENTRIES:
        return flat
    stride = -(-flat.shape[0] // HISTOGRAM_ENTRIES) | 1  # odd: an even one would leave out most channels of a kernel
    return tf.concat([flat[::stride], [tf.reduce_min(flat), tf.reduce_max(flat)]], 0)


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
        self.metrics_path = workdir / "metrics.jsonl"
        self._drop_lines_after(first_step)
        self._drop_events_after(first_step)
        self.writer = tf.summary.create_file_writer(str(workdir / "tensorboard"), flush_millis=1000 * FLUSH_SECONDS)
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm.tqdm(total=total_steps, initial=first_step, desc=title, unit="step", dynamic_ncols=True)
        self.restart_clock(first_step)

    def _drop_lines_after(self, step: int) -> None:
        """A resumed run writes the lines after its checkpoint again; a line that is torn goes too."""
        if self.metrics_path.exists():
            lines = self.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            found = [(line, re.match(r'\{"step": (\d+)\b.*\}\n', line)) for line in lines]
            files.write_text(self.metrics_path, "".join(line for line, m in found if m and int(m[1]) <= step))

    def _drop_events_after(self, step: int) -> None:
        """As `_drop_lines_after`, in the event files; none is left of a run that begins again at step 0."""
        for path in (self.workdir / "tensorboard").glob("events.out.tfevents.*"):
            if step == 0:
                path.unlink()
                continue
            beside = self.workdir / "events.partial"  # a name and a place that TensorBoard does not read
            with tf.io.TFRecordWriter(str(beside)) as kept, contextlib.suppress(tf.errors.DataLossError):  # torn
                for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                    if tf.compat.v1.Event.FromString(record).step <= step:
                        kept.write(record)
            os.replace(beside, path)

    def restart_clock(self, step: int) -> None:
        """Leaves out what came before (compiling) from images/s."""
        self.marked_step, self.marked_time = step, time.monotonic()

    def configuration(self, config: Config, stage: str, **more: str) -> None:
        """The configuration: as a text page, and as HParams, by which TensorBoard puts runs in one table.

        Without a list of its columns the table shows those first in which runs differ, and all scalars.

        Args:
          config: the run's.
          stage: "autoencoder_training" or "gan_training"; the other one is left out.
          **more: further columns, as dataset and split.
        """
        values, lines = {"preset": config.preset, "stage": stage, **more}, []
        for section, field in fields_of(*SECTIONS, stage):
            pair = getattr(getattr(config, section), field.name), field.default
            value, release = (",".join(map(str, v)) if isinstance(v, tuple) else v for v in pair)
            values[field.name] = value
            help = field.metadata["help"].replace("|", "/")
            lines.append(f"| {section} | {field.name} | {value} | {release} | {help} |")
        head = ", ".join(f"{name}: {values[name]}" for name in ("preset", "stage", *more))
        table = ["| section | flag | value | preset release | what it is |", "|---|---|---|---|---|", *lines]
        with self.writer.as_default(step=0):
            tf.summary.text("configuration", "\n".join([head, "", *table]))
            hparams.hparams(values, trial_id=str(self.workdir))

    def graph(self, graph: tf.Graph) -> None:
        """The graph of a traced function without its outputs and the order of its effects: what computes what."""
        definition, outputs = graph.as_graph_def(), {tensor.op.name for tensor in graph.outputs}
        nodes = [node for node in definition.node if node.op != "NoOp" and node.name not in outputs]
        for node in nodes:
            node.input[:] = [name for name in node.input if not name.startswith("^")]
        with self.writer.as_default(step=0):
            tf.summary.graph(tf.compat.v1.GraphDef(node=nodes, versions=definition.versions))

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
                tf.summary.scalar(scalar_tag(name), value)
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
        """Write the picture strip to TensorBoard and to pictures/latest.png.

        Args:
          step: step of the run.
          columns: name to images [B, H, W, 1 or 3] in [-1, 1]; each name becomes a column, each image a row.
        """
        kinds = [as_bytes(tf.cast(images, tf.float32)).numpy() for images in columns.values()]
        tiles = []
        for row in zip(*kinds, strict=True):
            tiles.extend(row)
        strip = montage(tiles, len(columns), gap=2)
        with self.writer.as_default(step=step):
            tf.summary.image(f"pictures/{' | '.join(columns)}", strip[None])
        files.write_bytes(self.workdir / "pictures" / "latest.png", tf.io.encode_png(strip).numpy())

    def histograms(self, step: int, tensors: dict) -> None:
        """A histogram of each tensor, by name."""
        with self.writer.as_default(step=step):
            for name, values in tensors.items():
                tf.summary.histogram(name, histogram_sample(values))

    def filters(self, step: int, kernel) -> None:
        """A layer's kernels [k, k, 3, n] side by side, each scaled to its own range (release)."""
        picture = filter_montage(kernel)[None]
        with self.writer.as_default(step=step):
            tf.summary.image("pictures/first kernels", picture.repeat(ENLARGED, 1).repeat(ENLARGED, 2))

    def flush(self) -> None:
        """Puts everything on disk: what lies before a checkpoint must not be lost with the process."""
        self.writer.flush()

    def close(self) -> None:
        """Flushes the event file and ends the bar."""
        self.writer.close()
        if self.bar is not None:
            self.bar.close()
