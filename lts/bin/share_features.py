r"""Upload an export to the Hugging Face hub.

    python -m lts.bin.share_features --model=runs/features --repo=USER/NAME --license=cc-by-4.0

Everyone can then use --model=hf://USER/NAME and lts.load("hf://USER/NAME"). Needs the extra `hub`, and a login with
`hf auth login`. The licence is that of the export; --license states it, or another one, in the upload.
"""

import json
import pathlib

from absl import flags

from lts.bin import common, paths
from lts.export import hub, model_card
from lts.export.choices import EXPORT, check_license, read_description
from lts.utils.files import read_regular
from lts.utils.streams import print_result

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("model", None, "folder of the SavedModel", required=True)
    flags.DEFINE_string("repo", None, "repository of the hub, USER/NAME; it is created if there is none", required=True)
    flags.DEFINE_string("license", None, "licence of the model, as the hub names it, such as cc-by-4.0")
    flags.DEFINE_bool("private", False, "make a new repository private")


def main() -> None:
    """Upload the export."""
    check_license(FLAGS.license)
    if hub.is_address(FLAGS.model):
        raise common.UsageError(f"model must be a folder of this computer. Received: --model={FLAGS.model}")
    hub.parse(f"{hub.PREFIX}{FLAGS.repo}")
    description = read_description(FLAGS.model)
    if FLAGS.license:
        description["license"] = FLAGS.license
    if not description.get("license"):
        raise common.UsageError(
            "the licence of the model is not stated. Give --license=NAME, an identifier of the hub such as cc-by-4.0 "
            "or other. The licences of your photographs may restrict it."
        )
    folder = pathlib.Path(FLAGS.model)
    description[hub.CHECKSUMS] = hub.checksums(folder, EXPORT.names)
    contents = {hub.CONFIG: f"{json.dumps(description, indent=2)}\n".encode()}
    card = folder / model_card.NAME
    # NB: the user may have written into the card.
    text = read_regular(card).decode("utf-8", errors="replace") if card.exists() else model_card.card(description)
    contents[model_card.NAME] = model_card.with_license(text, description["license"]).encode()
    address = hub.upload(FLAGS.repo, folder, EXPORT.names, contents, FLAGS.private)
    uploaded = f"uploaded {FLAGS.model} to {hub.PREFIX}{FLAGS.repo}, license {description['license']}"
    print_result(f"{uploaded}\nthis version: {address}")


def console() -> None:
    """Run the command `lts-share-features`."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
