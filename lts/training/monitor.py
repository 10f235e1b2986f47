"""Progress of a run: terminal, TensorBoard, metrics.jsonl, pictures."""

import contextlib
import json
import pathlib
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tqdm
from tensorboard.plugins.hparams import api as hparams

from lts.config import SECTIONS, fields_of
from lts.data import as_bytes
from lts.training.run_record import RunRecord
from lts.utils import files, filesystem, markdown
from lts.utils.progress import PROBE, TIME, print_with_time, probe_text, progress_text
from lts.utils.streams import write_to_log
from lts.utils.text import utf8
from lts.visualization.montage import filter_montage, montage

COLUMNS = 80  # of a progress line
# Numbers instead of a picture of a bar: on 80 columns both do not fit.
BAR_FORMAT = "{desc} {n_fmt}/{total_fmt} {percentage:.0f}% left {remaining}{postfix}"
HISTOGRAM_ENTRIES = 2**16  # of a tensor; larger tensors are sampled, because TensorBoard needs 240 bytes per entry
ENLARGED = 8  # pixels per side of a weight in the montage
FLUSH_SECONDS = 10  # longest time before an event is on disk
# Names of the files that `tf.summary` writes: time, host, process and a counter. A copy of one has another name.
EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d+\..*\.\d+\.\d+\.v2")
# Of scalars; all others are losses. The first that is part of the name counts.
GROUPS = ("probe", "accuracy", "gradient_norm", "learning_rate", "images_per_second")
DESCRIPTIONS = {  # in TensorBoard
    "probe_knn_accuracy": "Accuracy of weighted nearest neighbours, in [0, 1]. Higher is better.",
    "probe_rank": "Effective rank (RankMe), from 1 to the number of channels. Higher is better.",
    "probe_alignment": "Mean squared distance of two views of an image, in [0, 4]. Lower is better.",
    "probe_uniformity": "How evenly the features cover the sphere, from 0 (collapsed) to about -4. Lower is better.",
}


def format_time(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def scalar_tag(name: str) -> str:
    """Return a scalar's group and name in TensorBoard, such as loss/mask."""
    group = next((group for group in GROUPS if group in name), "loss")
    return f"{group}/{name}"


def histogram_sample(values):
    """Return a flat sample of a large tensor, with its extremes."""
    flat = tf.reshape(values, [-1])
    if flat.shape[0] <= HISTOGRAM_ENTRIES:
        return flat
    # NB: the stride is odd. An even one would skip most output channels of a kernel.
    stride = -(-flat.shape[0] // HISTOGRAM_ENTRIES) | 1
    return tf.concat([flat[::stride], [tf.reduce_min(flat), tf.reduce_max(flat)]], 0)


def write_pictures(path: pathlib.Path, columns: Mapping[str, Any]) -> None:
    """Write a picture strip as a PNG file, and to the default summary writer.

    Args:
      path: of the file, which is replaced atomically.
      columns: name to images [B, H, W, 1 or 3] in [-1, 1]; each name becomes a column, each image a row.
    """
    kinds = [as_bytes(tf.cast(images, tf.float32)).numpy() for images in columns.values()]
    tiles = []
    for row in zip(*kinds, strict=True):
        tiles.extend(row)
    strip = montage(tiles, len(columns), gap=2)
    tf.summary.image(f"pictures/{' | '.join(columns)}", strip[None])
    files.write_bytes(path, tf.io.encode_png(strip).numpy())


class Monitor:
    """Writer of a run's progress.

    Args:
      workdir: folder of the run.
      title: name in progress lines.
      first_step: training steps done before.
      total_steps: steps of the whole run.
      batch_size: global batch size, for images/s.
    """

    def __init__(self, workdir: pathlib.Path, title: str, first_step: int, total_steps: int, batch_size: int):
        self.workdir = workdir
        self.title = title
        self.total_steps = total_steps
        self.batch_size = batch_size
        self.metrics_path = workdir / "metrics.jsonl"
        # A resumed run writes what followed its checkpoint again.
        self._remove_lines_after(first_step)
        self._remove_events_after(first_step)
        self.writer = tf.summary.create_file_writer(str(workdir / "tensorboard"), flush_millis=1000 * FLUSH_SECONDS)
        # A bar on a terminal, plain lines in a log file.
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm.tqdm(
                total=total_steps, initial=first_step, desc=title, bar_format=BAR_FORMAT, dynamic_ncols=True
            )
        self.restart_clock(first_step)

    def _remove_lines_after(self, step: int) -> None:
        """Remove later lines and truncated ones from metrics.jsonl."""
        if not self.metrics_path.exists():
            return
        text = files.read_regular(self.metrics_path).decode("utf-8", errors="replace")
        kept = []
        for line in text.splitlines(keepends=True):
            complete = re.match(r'\{"step": (\d+)\b.*\}\n', line)
            if complete and int(complete[1]) <= step:
                kept.append(line)
        files.write_text(self.metrics_path, "".join(kept))

    def _remove_events_after(self, step: int) -> None:
        """Remove later events; all of them at step 0."""
        folder = self.workdir / "tensorboard"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not EVENT_FILE.fullmatch(path.name):
                continue
            if step == 0:
                path.unlink()
                continue
            partial = self.workdir / "events.partial"  # a name and a folder that TensorBoard does not read
            # The last record of a killed process may be truncated.
            with tf.io.TFRecordWriter(str(partial)) as kept, contextlib.suppress(tf.errors.DataLossError):
                for event in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                    if tf.compat.v1.Event.FromString(event).step <= step:
                        kept.write(event)
            filesystem.replace(partial, path)

    def restart_clock(self, step: int) -> None:
        """Measure images/s from now on, for example after compiling."""
        self._clock_step = step
        self._clock_time = time.monotonic()

    def configuration(self, record: RunRecord, section: str) -> None:
        """Write the configuration as text and as HParams.

        HParams put all runs of a folder in one table of TensorBoard. Its columns are not listed here: TensorBoard then
        shows the columns first in which runs differ, and all scalars.

        Args:
          record: of the run.
          section: "autoencoder_training" or "gan_training"; the other one is omitted.
        """
        config = record.config
        # NB: TensorBoard takes no text that is not UTF-8.
        dataset = record.dataset and utf8(record.dataset)
        split = record.split and utf8(record.split)
        values = {"preset": config.preset, "stage": section, "dataset": dataset, "split": split}
        head = markdown.escape(", ".join(f"{name}: {value}" for name, value in values.items()))
        rows = [("section", "flag", "value", "preset release", "description")]
        for name, field in fields_of(*SECTIONS, section):
            value = _text(getattr(getattr(config, name), field.name))
            values[field.name] = value
            rows.append((name, field.name, str(value), str(_text(field.default)), field.metadata["help"]))
        with self.writer.as_default(step=0):
            tf.summary.text("configuration", f"{head}\n\n{markdown.table(rows)}")
            hparams.hparams(values, trial_id=str(self.workdir))

    def graph(self, graph: tf.Graph) -> None:
        """Write the graph of a traced function."""
        # Without outputs and control edges the picture shows which network feeds which.
        outputs = {tensor.op.name for tensor in graph.outputs}
        definition = graph.as_graph_def()
        nodes = [node for node in definition.node if node.op != "NoOp" and node.name not in outputs]
        for node in nodes:
            node.input[:] = [name for name in node.input if not name.startswith("^")]
        with self.writer.as_default(step=0):
            tf.summary.graph(tf.compat.v1.GraphDef(node=nodes, versions=definition.versions))

    def advance(self, steps: int) -> None:
        """Advance the progress bar."""
        if self.bar is not None:
            self.bar.update(steps)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Write one line of scalars, with images_per_second.

        The values of an online evaluation, whose names begin with `PROBE`, are printed on a separate line.
        """
        seconds = max(time.monotonic() - self._clock_time, 1e-9)
        rate = (step - self._clock_step) * self.batch_size / seconds
        left = (self.total_steps - step) * self.batch_size / max(rate, 1e-9)
        values = {name: float(value) for name, value in values.items()} | {"images_per_second": rate}
        with self.writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(scalar_tag(name), value, description=DESCRIPTIONS.get(name))
        # One line per write: a killed process leaves at most one truncated line, which `_remove_lines_after` drops.
        with self.metrics_path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step} | values) + "\n")
        self._show(step, left, values)
        self.restart_clock(step)

    def _show(self, step: int, left: float, values: dict[str, float]) -> None:
        """Print a line, or update the bar; `left` is in seconds."""
        probe = {name: value for name, value in values.items() if name.startswith(PROBE)}
        scalars = {name: value for name, value in values.items() if name not in probe}
        name = f"{self.title} step {step}/{self.total_steps}"
        progress = f"{name} left {format_time(left)}"
        line = f"{progress} {progress_text(scalars, COLUMNS - len(TIME) - 1 - len(progress))}"
        if self.bar is not None:
            head = f"{self.title} {step}/{self.total_steps} 100% left 00:00:00, "
            self.bar.set_postfix_str(progress_text(scalars, COLUMNS - 1 - len(head)))
            write_to_log(line)
        else:
            print_with_time(line)
        if probe:
            # NB: tqdm's own `write`, which moves the bar out of the way.
            write = self.bar.write if self.bar is not None else print_with_time
            write(f"{name} {probe_text(probe, COLUMNS - len(TIME) - 1 - len(name))}")

    def pictures(self, step: int, columns: dict) -> None:
        """Write the picture strip to TensorBoard and to pictures/latest.png.

        Args:
          step: step of the run.
          columns: name to images [B, H, W, 1 or 3] in [-1, 1]; each name becomes a column, each image a row.
        """
        with self.writer.as_default(step=step):
            write_pictures(self.workdir / "pictures" / "latest.png", columns)

    def histograms(self, step: int, tensors: dict) -> None:
        """Write a histogram of each tensor, by name."""
        with self.writer.as_default(step=step):
            for name, values in tensors.items():
                tf.summary.histogram(name, histogram_sample(values))

    def filters(self, step: int, kernel) -> None:
        """Write the montage of kernels [k, k, 3, n] (release); None writes nothing."""
        if kernel is None:
            return
        picture = filter_montage(kernel)[None]
        with self.writer.as_default(step=step):
            tf.summary.image("pictures/first kernels", picture.repeat(ENLARGED, 1).repeat(ENLARGED, 2))

    def flush(self) -> None:
        """Flush the events that precede a checkpoint."""
        self.writer.flush()

    def close(self) -> None:
        """Close the event file and the bar."""
        self.writer.close()
        if self.bar is not None:
            self.bar.close()


def _text(value: Any) -> Any:
    """Return a tuple as a flag shows it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value
