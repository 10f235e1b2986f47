r"""Measure what the discriminator of an export looks at.

    python -m experiments.shortcuts --model=runs/features --evaluate=runs/gan --dataset=folder:PHOTOS --split=test \
        --output=runs/shortcuts

The networks of the run reconstruct, damage and repair the images of --dataset, as in `lts.bin.spot_artifacts
--evaluate`. The program measures how well reconstructions and repaired images are told apart: from each layer alone,
after filters, and by the number of dropped cells. It draws occlusion maps. It writes results.json, results.md,
results.png, results.html, occlusion.png and positions.png to --output. The same command resumes a stopped run.
"""

import dataclasses
import os

from absl import flags

from experiments.cues.protocol import ShortcutsProtocol
from lts.bin import common, field_flags, paths
from lts.config.fields import fields_named
from lts.export import choices
from lts.utils import outputs
from lts.utils.streams import print_result

FLAGS = flags.FLAGS
DEFAULT = ShortcutsProtocol()
FIELDS = [field for field in fields_named(ShortcutsProtocol) if field.name not in ("name", "confidence")]
PICTURES = ("results.html", "occlusion.png", "positions.png")  # in addition to the files of every program


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("model", None, "SavedModel of export_features", required=True)
    paths.define("evaluate", None, "workdir of train_gan, which damages and repairs the images", required=True)
    paths.define("output", None, "folder of the results", required=True)
    with field_flags.group("Protocol"):
        field_flags.define(FIELDS, lambda: DEFAULT)
    common.define_data_flags()
    common.define_import_flag()


def main() -> None:
    """Check the flags and measure."""
    protocol = dataclasses.replace(DEFAULT, **field_flags.given(FIELDS))
    from experiments.reporting import results as result_files  # imports matplotlib

    result_files.check_output(FLAGS.output, FLAGS.dataset, (*result_files.WRITTEN, *PICTURES))
    choices.check_spot(FLAGS.model, choices.read_description(FLAGS.model))
    common.import_tensorflow()
    with outputs.locked(FLAGS.output):
        _run(protocol)


def _run(protocol: ShortcutsProtocol) -> None:
    """Measure and report."""
    from experiments.cues import report
    from experiments.cues import run as cue_run
    from experiments.probing.cache import clear_cache
    from lts.export import saved_model
    from lts.spotting import Corruption

    model = saved_model.load(FLAGS.model)
    corruption = Corruption(FLAGS.evaluate)
    source = common.open_source(corruption.config.image)
    results, examples = cue_run.run(model, corruption, source, FLAGS.output, protocol)
    report.write(results, examples, FLAGS.output)
    # The cache goes last, so that a run which stops before repeats no work.
    clear_cache(FLAGS.output)
    page = os.path.join(FLAGS.output, "results.html")
    print_result(f"\n{report.summary(results)}\n{results['seconds']:.0f} s. Page: {page}")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
