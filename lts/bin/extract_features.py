"""Extracts features of a set of images into a file.

python -m lts.bin.extract_features --model=runs/features --dataset=folder:PHOTOS --pool=avg --output=X.npz
python -m lts.bin.extract_features --model=runs/features --dataset=folder:PHOTOS --layer=conv_5,conv_3 --output=X.npz

The same command goes on where it was stopped. `lts.extraction.feature_files` says what is in the file.
"""

import time

from absl import flags

from lts.bin import common
from lts.extraction import feature_files

FLAGS = flags.FLAGS


def main() -> int:
    """Flags to one extraction."""
    layers = tuple(FLAGS.layer)
    if not layers or not all(layers) or len(set(layers)) < len(layers):
        raise common.UsageError(f"layer must be names of layers, each once. Received: {','.join(layers)}")
    feature_files.check_format(FLAGS.output)
    common.import_tensorflow()
    from lts.export import saved_model
    from lts.extraction import extract as extraction
    from lts.extraction.stream import open_stream

    model = saved_model.load(FLAGS.model)
    stream = open_stream(FLAGS.dataset, FLAGS.split, data_dir=FLAGS.data_dir)
    print(
        f"{stream.name}, split {stream.split}: {len(stream.names)} images, {len(stream.class_names)} classes",
        flush=True,
    )
    start = time.monotonic()
    result = extraction.extract(
        model,
        stream,
        FLAGS.output,
        layers,
        FLAGS.pool,
        dtype=FLAGS.dtype,
        image_size=FLAGS.image_size,
        batch_size=FLAGS.batch_size,
        skip_broken_images=FLAGS.skip_broken_images,
    )
    if result.broken:
        print(f"{len(result.broken)} broken images were skipped: {', '.join(result.broken)}", flush=True)
    if result.already_complete:
        print(f"{FLAGS.output} was finished before: {result.images} images")
        return 0
    if result.signal is not None:
        print("run the same command again to go on", flush=True)
        return 128 + result.signal
    print(f"{FLAGS.output}: {result.images} images, {time.monotonic() - start:.1f} s")
    return 0


def console() -> None:
    """Entry point of `lts-extract-features`."""
    flags.DEFINE_string("model", None, "folder of the SavedModel", required=True)
    flags.DEFINE_list("layer", ["conv_5"], "layers, as conv_5,conv_3")
    flags.DEFINE_string("pool", "none", "none | avg | max | grid:N")
    flags.DEFINE_string("output", None, "X.npz | X.tfrecord | X.parquet", required=True)
    flags.DEFINE_enum("dtype", "float32", ("float32", "float16"), "of the values in the file")
    flags.DEFINE_integer("image_size", None, "pixels a side; that of the model's training if not given", lower_bound=1)
    flags.DEFINE_integer("batch_size", 128, "images at a time", lower_bound=1)
    common.define_data_flags(cache=False)
    common.run(main)


if __name__ == "__main__":
    console()
