r"""Detection: Fast R-CNN on the backbone of a SavedModel, on data in the layout of PASCAL VOC.

    python -m experiments.voc_detection --model=runs/features --dataset=folder:VOCdevkit/VOC2007 --protocol=voc2007 \
        --baseline=runs/random_1,runs/random_2,runs/random_3 --output=runs/detection

The baselines are trained in the same way. Proposals are searched for once, in parallel, and kept in --proposal_cache,
or come from --proposals. Writes results.json, results.md, results.png and pictures/ into --output; the runs lie below
it in training/, with checkpoints and TensorBoard. A run that was stopped goes on where it stopped.
"""

import os
from typing import Any

from absl import flags

from experiments.voc import flags as voc_flags
from experiments.voc.detection.proposals import MAX_BOXES
from experiments.voc.detection.selective_search import MODES
from experiments.voc.protocols import DETECTION
from lts.bin import common, field_flags

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this binary."""
    voc_flags.define_flags(DETECTION, "trainval", "test")
    with field_flags.group("Proposals"):
        flags.DEFINE_string("proposals", None, ".npz of boxes by image id, see experiments/voc/detection/proposals.py")
        flags.DEFINE_string("proposal_cache", None, "folder of the proposals found; none: OUTPUT/proposals")
        flags.DEFINE_enum("proposal_mode", "fast", MODES, "mode of selective search")
        flags.DEFINE_integer("max_proposals", MAX_BOXES, "largest number of proposals per image (Fast R-CNN)", 1)


def main() -> None:
    """Run the task that the flags describe."""
    if not FLAGS.proposals:
        from experiments.voc.detection import selective_search

        selective_search.import_opencv()  # says what is missing before anything is read

    def make(inputs: voc_flags.Inputs, protocol: Any) -> Any:
        from experiments.voc.detection.task import DetectionTask

        found = (_proposals(images.set) for images in (inputs.train, inputs.test))
        return DetectionTask(inputs.train, inputs.test, protocol, *found)

    voc_flags.run(DETECTION, "detection", make)


def _proposals(opened: Any) -> tuple:
    """Of the images of a set: from --proposals, or searched for."""
    from experiments.voc.detection import proposals

    if FLAGS.proposals:
        found = proposals.read_proposals(FLAGS.proposals, opened.ids, opened.sizes, FLAGS.max_proposals)
    else:
        cache = FLAGS.proposal_cache or os.path.join(FLAGS.output, "proposals")
        mode, most = FLAGS.proposal_mode, FLAGS.max_proposals
        found = proposals.search_proposals(opened.paths, cache, mode=mode, max_boxes=most)
    share, number = proposals.recall(found, opened.objects), sum(map(len, found)) / len(found)
    print(
        f"{opened.name}, split {opened.split}: {number:.0f} proposals an image, {100 * share:.1f} % of objects covered"
    )
    return found


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
