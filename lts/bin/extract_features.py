r"""Extract the features of images into a file.

    python -m lts.bin.extract_features --model=runs/features --dataset=folder:PHOTOS --output=X.npz
    python -m lts.bin.extract_features --model=runs/features --dataset=folder:PHOTOS --layer=conv_2,conv_3 \
        --pool=grid:4 --output=X.npz

The first command writes one vector per image: the mean of conv_3, the best layer in this project's probes. The second
keeps spatial detail, which helps a linear classifier. Each layer is one array of the file. The same command resumes a
stopped run. `lts.extraction.feature_files` describes the contents of the file.
"""

import time

from absl import flags

from lts.bin import common, paths
from lts.export.choices import DEFAULT_POOL, check_pool, choose_layers, read_description
from lts.extraction import feature_files
from lts.utils.streams import print_result

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("model", None, "folder of the SavedModel", required=True)
    flags.DEFINE_list(
        "layer",
        [],
        "layers, such as conv_2,conv_3, or all; none: the default_layer in the model's config.json, which is conv_3, "
        "and the last layer of a network that was trained on labels",
    )
    flags.DEFINE_string(
        "pool", DEFAULT_POOL, "avg: one vector per image | max | grid:N: averages over N x N areas | none: whole maps"
    )
    paths.define("output", None, "X.npz | X.tfrecord | X.parquet", required=True)
    flags.DEFINE_enum("dtype", "float32", ("float32", "float16"), "type of the values in the file")
    flags.DEFINE_integer("image_size", None, "pixels per side; none: that of the model's training", lower_bound=1)
    flags.DEFINE_integer("batch_size", 128, "images per forward pass", lower_bound=1)
    common.define_data_flags(cache=False)


def main() -> int:
    """Extract the features that the flags describe."""
    # Everything that can be checked without TensorFlow is checked before its import, which takes seconds.
    if FLAGS["layer"].present and not all(FLAGS.layer or [""]):
        raise common.UsageError(f"layer must be names of layers. Received: layer={','.join(FLAGS.layer)}")
    check_pool(FLAGS.pool)
    feature_files.check_format(FLAGS.output)
    layers = choose_layers(read_description(FLAGS.model), FLAGS.layer)
    common.import_tensorflow()
    from lts.data.sources import describe_other_files
    from lts.export import saved_model
    from lts.extraction import extract as extraction
    from lts.extraction.stream import open_stream

    model = saved_model.load(FLAGS.model)
    stream = open_stream(
        FLAGS.dataset,
        FLAGS.split,
        data_dir=FLAGS.data_dir,
        skip_broken_images=FLAGS.skip_broken_images,
        stored_size=common.stored_size(common.image_config(model, FLAGS.image_size)),
        progress=True,
    )
    counts = f"{len(stream.names)} images, {len(stream.class_names)} classes"
    print(f"{stream.name}, split {stream.split}: {counts}", flush=True)
    if stream.other_files:
        print(describe_other_files(stream.other_files), flush=True)
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
    common.print_broken(result.broken)
    if result.already_complete:
        print_result(f"{FLAGS.output} was finished before: {result.images} images")
        return 0
    if result.signal is not None:
        print(common.RESUME, flush=True)
        return 128 + result.signal
    seconds = time.monotonic() - start
    print_result(f"{FLAGS.output}: {result.images} images, {' '.join(layers)}, pool {FLAGS.pool}, {seconds:.1f} s")
    return 0


def console() -> None:
    """Run the command `lts-extract-features`."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
