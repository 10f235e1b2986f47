r"""VOC detection: fine-tune Fast R-CNN on a backbone.

    python -m experiments.voc_detection --model=runs/features --dataset=folder:VOCdevkit/VOC2007 --protocol=voc2007 \
        --baseline=runs/random_1,runs/random_2,runs/random_3 --output=runs/detection

The baselines are trained in the same way. Proposals are read from --proposals, or searched for once, in parallel, and
kept in --proposal_cache. Writes results.json, results.md, results.png and pictures/ into --output, and the runs with
checkpoints and TensorBoard into its folder training/. A stopped run resumes from its last checkpoint.
"""

import os
from typing import Any

from absl import flags

from experiments.voc import flags as voc_flags
from experiments.voc.detection.proposals import MAX_BOXES
from experiments.voc.detection.selective_search import MODES
from experiments.voc.protocols import DETECTION
from lts.bin import common, field_flags, paths

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this binary."""
    voc_flags.define_flags(DETECTION, "trainval", "test")
    with field_flags.group("Proposals"):
        paths.define("proposals", None, ".npz of boxes by image id, see experiments/voc/detection/proposals.py")
        paths.define("proposal_cache", None, "folder of the searched proposals; none: OUTPUT/proposals")
        flags.DEFINE_enum("proposal_mode", "fast", MODES, "mode of selective search")
        flags.DEFINE_integer("max_proposals", MAX_BOXES, "largest number of proposals per image (Fast R-CNN)", 1)


def main() -> None:
    """Run the task that the flags describe."""
    if FLAGS.proposals:
        common.refuse(["proposal_cache", "proposal_mode"], "--proposals")
    else:
        from experiments.voc.detection import selective_search

        selective_search.import_opencv()  # raises before images are read

    def make(inputs: voc_flags.Inputs, protocol: Any) -> Any:
        from experiments.voc.detection.task import DetectionTask

        train_proposals = _proposals(inputs.train.set)
        test_proposals = _proposals(inputs.test.set)
        return DetectionTask(inputs.train, inputs.test, protocol, train_proposals, test_proposals)

    voc_flags.run(DETECTION, "detection", make)


def _proposals(images: Any) -> tuple:
    """Read or search the proposals of a set, and print how many objects they cover."""
    from experiments.voc.detection import proposals

    if FLAGS.proposals:
        boxes = proposals.read_proposals(FLAGS.proposals, images.ids, images.sizes, FLAGS.max_proposals)
    else:
        cache = FLAGS.proposal_cache or os.path.join(FLAGS.output, "proposals")
        boxes = proposals.search_proposals(images.paths, cache, mode=FLAGS.proposal_mode, max_boxes=FLAGS.max_proposals)
    per_image = sum(map(len, boxes)) / len(boxes)
    covered = 100 * proposals.recall(boxes, images.objects)
    print(
        f"{images.name}, split {images.split}: {per_image:.0f} proposals per image, {covered:.1f} % of objects covered"
    )
    return boxes


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
