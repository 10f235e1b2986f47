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
from lts.bin import common


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Adds this binary's flags; a function, so that importing the module has no effect on other binaries."""
    voc_flags.define(DETECTION, "trainval", "test", values)
    text = flags.DEFINE_string
    text(
        "proposals", None, ".npz of boxes by image id, see experiments/voc/detection/proposals.py.", flag_values=values
    )
    text("proposal_cache", None, "What was searched for; none: OUTPUT/proposals.", flag_values=values)
    flags.DEFINE_enum("proposal_mode", "fast", MODES, "Of selective search.", flag_values=values)
    flags.DEFINE_integer("max_proposals", MAX_BOXES, "Of one image (Fast R-CNN).", 1, flag_values=values)


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags to one call of `transfer_flags.run`."""
    if not values.proposals:
        from experiments.voc.detection import selective_search

        selective_search.import_opencv()  # says what is missing before anything is read

    def make(inputs: voc_flags.Inputs, protocol: Any) -> Any:
        from experiments.voc.detection.task import DetectionTask

        found = (_proposals(values, images.set) for images in (inputs.train, inputs.test))
        return DetectionTask(inputs.train, inputs.test, protocol, *found)

    voc_flags.run(values, DETECTION, "detection", make)


def _proposals(values: flags.FlagValues, opened: Any) -> tuple:
    """Of the images of a set: from --proposals, or searched for."""
    from experiments.voc.detection import proposals

    if values.proposals:
        found = proposals.read_proposals(values.proposals, opened.ids, opened.sizes, values.max_proposals)
    else:
        cache = values.proposal_cache or os.path.join(values.output, "proposals")
        mode, most = values.proposal_mode, values.max_proposals
        found = proposals.search_proposals(opened.paths, cache, mode=mode, max_boxes=most)
    share, number = proposals.recall(found, opened.objects), sum(map(len, found)) / len(found)
    print(
        f"{opened.name}, split {opened.split}: {number:.0f} proposals an image, {100 * share:.1f} % of objects covered"
    )
    return found


def console() -> None:
    """Entry point of the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
