r"""Look at features without labels: nearest neighbours, clusters, near-duplicates.

    python -m experiments.neighbours --model=runs/features --dataset=folder:PHOTOS --output=runs/neighbours

The page shows sampled photographs with their nearest neighbours in each layer, next to those of random weights of the
same architecture. It also shows clusters with their most central images, and pairs of nearly equal photographs. Labels
are not needed; neighbours of the same class are marked where there are some. The program writes neighbours.html,
neighbours.json and a folder for TensorBoard's projector to --output.
"""

import dataclasses
import os

from absl import flags

from experiments.probing.protocols import NeighboursProtocol
from lts.bin import common, field_flags, paths
from lts.config.fields import fields_named
from lts.export import choices
from lts.utils import outputs
from lts.utils.outputs import OutputFolder, dataset_folder
from lts.utils.streams import print_result

FLAGS = flags.FLAGS
DEFAULT = NeighboursProtocol()
FIELDS = fields_named(NeighboursProtocol)
PAGE = "neighbours.html"
RESULTS = "neighbours.json"
NEIGHBOURS = OutputFolder(marker=RESULTS, names=(RESULTS, PAGE, "tensorboard/*"))


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("model", None, "SavedModel of export_features", required=True)
    paths.define("baseline", None, "SavedModel to compare with; none: random weights of the same architecture")
    paths.define("output", None, "folder of the page", required=True)
    with field_flags.group("Page"):
        field_flags.define(FIELDS, lambda: DEFAULT)
        flags.DEFINE_integer("projector_images", 1000, "images in TensorBoard's projector; 0: none", 0)
    common.define_data_flags()
    common.define_import_flag()


def main() -> None:
    """Check the flags, compare and write."""
    protocol = dataclasses.replace(DEFAULT, **field_flags.given(FIELDS))
    outputs.check_outside(FLAGS.output, FLAGS.dataset)
    inputs = [FLAGS.model, FLAGS.baseline, FLAGS.data_dir, FLAGS.cache_dir, dataset_folder(FLAGS.dataset)]
    NEIGHBOURS.check(FLAGS.output, inputs)
    description = choices.read_description(FLAGS.model)
    if FLAGS.baseline is not None:
        choices.read_description(FLAGS.baseline)
    elif description.get("network", "backbone") != "backbone":
        raise common.UsageError(
            f"random weights are made for backbones only. Received: model={FLAGS.model}, an exported "
            f"{description['network']}. Give --baseline."
        )
    common.import_tensorflow()
    _run(protocol)


def _run(protocol: NeighboursProtocol) -> None:
    """Compare the features and write the output folder."""
    from experiments.probing import neighbours, projector
    from experiments.reporting import neighbours as neighbours_report
    from lts import data, training
    from lts.export import saved_model
    from lts.utils import files

    model = saved_model.load(FLAGS.model)
    options = common.data_options(common.image_config(model))
    source = data.open_source(FLAGS.dataset, FLAGS.split, limit=protocol.max_images, **options)
    if FLAGS.baseline is not None:
        baseline = saved_model.load(FLAGS.baseline)
    else:
        print("random weights: batch norm statistics are measured on the images", flush=True)
        baseline = neighbours.RandomModel(training.random_network(model.config, source, protocol.seed), protocol.seed)
    results = neighbours.look(model, baseline, source, protocol)
    with NEIGHBOURS.write(FLAGS.output) as folder:
        folder.mkdir()
        files.write_json(folder / RESULTS, results)
        logdir = os.path.join(FLAGS.output, projector.FOLDER) if FLAGS.projector_images else None
        neighbours_report.write(results, source, folder / PAGE, logdir)
        projector.write(model, [model.default_layer], source, folder, FLAGS.projector_images)
    print_result(f"\n{neighbours_report.summary(results)}\nPage: {os.path.join(FLAGS.output, PAGE)}")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
