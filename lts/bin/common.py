"""The start of a binary, and the flags of its images.

def define_flags() -> None:
    common.define_data_flags()

def main() -> None:
    source = common.open_source(config.image)

def console() -> None:
    define_flags()
    common.run(main)
"""

import dataclasses
import functools
import importlib.util
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import app, flags, logging

from lts import __version__
from lts import config as configs
from lts.bin import field_flags, paths
from lts.config.fields import check_number
from lts.utils import provenance, registry, sources, streams
from lts.utils.errors import UserError, first_line
from lts.utils.progress import terminal_note
from lts.utils.signals import stop_signals
from lts.utils.text import printable, warn

FLAGS = flags.FLAGS
DASHES = ("\u2013", "\u2014", "\u2212")  # en dash, em dash, minus sign
RESUME = "run the same command again to resume"
# Package of programs, which is also the name of an extra of setup.py, to {module: package to install}.
EXTRAS: dict[str, dict[str, str]] = {}
# Flags of the images without effect, by the kind of --dataset.
NO_EFFECT_ON = {
    "folder": ("data_dir",),
    "synthetic": ("data_dir", "skip_broken_images", "cache_gb", "stored_size", "cache_dir"),
}
STORED_SIZE = "larger images are shrunk once to this shorter side in pixels; 0: never; none: no crop loses pixels"
CACHE_DIR = "folder that keeps shrunk images on disk for later runs; none: only if memory is short, in ~/.cache"
IMAGES = "images: synthetic | tfds:NAME | folder:PATH"


class UsageError(UserError):
    """Invalid flags."""

    exit_status = 2


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def run(main: Callable[..., int | None], arguments: bool = False) -> None:
    """Run `main` and exit with its status.

    Invalid flags and every `UserError` become one line on stderr. Ctrl-C, SIGTERM and SIGHUP outside of training exit
    with 130, 143 and 129, and leave nothing half-written. A reader of the output may leave; output that cannot be
    written, for example to a full disk, is an error at the end.

    Args:
      main: function of the binary, called when the flags are parsed.
      arguments: whether `main` takes the command line's other arguments as a list; otherwise they are refused.
    """

    def guarded(argv: Sequence[str]) -> None:
        streams.open_program_streams(FLAGS.quiet)
        if not FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        # Training has its own handler, which writes a checkpoint first. Python turns SIGINT into KeyboardInterrupt.
        for number in stop_signals():
            if number != signal.SIGINT:
                signal.signal(number, _terminate)
        status = _status(main, argv[1:], arguments)
        if status == 0 or status > 128:  # a run that a signal has stopped can be resumed
            streams.print_kept_result()
        sys.exit(status)

    streams.tolerate_lost_output()
    flags.DEFINE_bool("version", False, "print the version and exit")
    flags.DEFINE_bool("quiet", False, "print only warnings, errors and the final result")
    # NB: not `sys.modules["__main__"]`, which is pip's script where a binary is started as `lts-train-gan`.
    docstring = main.__globals__["__doc__"] or ""  # python -OO removes it
    try:
        app.run(guarded, flags_parser=functools.partial(_parse, docstring))
    except SystemExit as end:
        lost = streams.lost_output()
        if lost and not end.code:
            end.code = _complain(f"standard output could not be written: {lost.strerror}", 1)
        raise


def _check_packages(programs: str) -> None:
    """Refuse to start long work that will lack a package in the end.

    Raises:
      UserError: a package of `EXTRAS` is not installed.
    """
    for module, package in EXTRAS.get(programs, {}).items():
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"the programs of {programs} need the package {package}. Run: pip install --editable '.[{programs}]'"
            )


def _status(main: Callable[..., int | None], given: Sequence[str], arguments: bool) -> int:
    """Return the exit status; print an error."""
    try:
        if given and not arguments:
            raise UsageError(f"unexpected argument. Received: {given[0]!r}. Give everything as --flag=value.")
        _check_current_folder()
        _check_packages(main.__globals__["__package__"])
        _refuse_data_flags()
        status = main(given) if arguments else main()
        return status or 0
    except UserError as error:
        return _complain(error, error.exit_status)
    except OSError as error:
        return _complain(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1)
    except _tensorflow_errors() as error:
        return _complain(first_line(error), 1)
    except _Terminated as stop:
        reason = "the terminal was closed" if stop.number == signal.SIGHUP else "terminated"
        return _complain(reason, 128 + stop.number)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except Exception as error:
        changed = sources.changed_file()
        if changed is None:
            raise
        # A part of the program was imported after the change, and does not fit the rest.
        reason = f"{type(error).__name__}: {first_line(error)}"
        return _complain(f"{changed} changed while the program ran ({reason}). Start it again; a run resumes.", 1)


def _check_current_folder() -> None:
    """Refuse to start in a folder that was removed, before hours of work fail at a path."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the current folder was removed. Change to a folder that exists.") from None


def _terminate(number: int, _) -> None:
    # NB: a closed terminal may send SIGHUP twice. The second one must not interrupt what the first one cleans up.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise _Terminated(number)


def _tensorflow_errors() -> tuple:
    """Return TensorFlow's errors, if it was imported."""
    # They are raised for a failing file, disk or device.
    tensorflow = sys.modules.get("tensorflow")
    return () if tensorflow is None else (tensorflow.errors.OpError,)


def _parse(docstring: str, argv: Sequence[str]) -> list[str]:
    """Parse the flags; answer --help and --version."""
    # Both are answered before any other flag is checked.
    if "--version" in argv:
        print(f"lts {__version__}")
        sys.exit(0)
    help_flags = {"--help", "-help", "-h", "-?"}
    try:
        # NB: read once: the second reader of a pipe, such as --flagfile=<(command), would find it empty.
        argv = [argv[0], *_read_flag_files(argv[1:])]
        _check_hyphens(argv[1:])
        _import_modules(argv)
    except UserError as error:
        sys.exit(_complain(error, error.exit_status))
    except KeyboardInterrupt:  # imports take seconds
        sys.exit(_complain("interrupted", 130))
    try:
        rest = FLAGS([argument for argument in argv if argument not in help_flags])
        _check_numbers()
    except (flags.Error, UserError) as error:
        if not help_flags.intersection(argv):
            sys.exit(_complain(_flag_complaint(error), 2))
    if help_flags.intersection(argv):
        print(field_flags.help_text(docstring))
        sys.exit(0)
    return rest


def _check_hyphens(arguments: Iterable[str]) -> None:
    """Refuse flags with a dash, into which word processors and web pages turn hyphens."""
    for argument in arguments:
        if argument.startswith(DASHES):
            raise UsageError(f"flags begin with two hyphens. Received: {argument!r}. Type the hyphens again.")


def _read_flag_files(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the contents of each --flagfile in its place.

    Raises:
      UsageError: a file cannot be read, or is no text.
    """
    try:
        # Editors of Windows begin a file with a byte order mark.
        return [argument.removeprefix("\ufeff") for argument in FLAGS.read_flags_from_files(arguments)]
    except flags.Error as error:
        raise UsageError(str(error).removeprefix("ERROR:: ")) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"a file of --flagfile is not text in UTF-8 ({first_line(error)})") from None


def define_import_flag(flag_values: flags.FlagValues = FLAGS) -> None:
    """Define --import, for binaries that build what a user's module can add."""
    if "import" not in flag_values:
        text = "module of yours that registers corruptions, optimizers and others; may be repeated"
        flags.DEFINE_multi_string("import", [], text, flag_values=flag_values)


def _import_modules(argv: Sequence[str]) -> None:
    """Import the modules of --import.

    Raises:
      ConfigError: a module cannot be imported.
    """
    if "import" not in FLAGS:
        return
    # The other flags are checked afterwards, so that they can name what the modules register.
    known = flags.FlagValues()
    known.set_gnu_getopt()
    define_import_flag(known)
    known(argv, known_only=True)
    for name in known["import"].value:
        import_tensorflow()
        registry.import_module(name)


def _check_numbers() -> None:
    """Check the numbers of all given flags."""
    # absl accepts NaN within any bounds, and integers of any length.
    for name in FLAGS:
        if FLAGS[name].present:
            check_number(name, FLAGS[name].value)


def _flag_complaint(error: Exception) -> str:
    missing = re.findall(r"flag --(\w+)=None: Flag --\1 must have a value", str(error))
    if missing:
        return f"give --{', --'.join(missing)}"
    # A field's message is clearer than absl's around it.
    cause = error.__context__
    return str(cause) if isinstance(cause, UserError) else str(error)


def _complain(error: object, status: int) -> int:
    program = os.path.basename(sys.argv[0]).removesuffix(".py")
    print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status


def import_tensorflow() -> None:
    """Import TensorFlow without its messages.

    Binaries call it once their flags are known to be valid, so that an invalid one is answered at once. If the variable
    TF_CPP_MIN_LOG_LEVEL is set, all messages are shown. A failing import shows them too.
    """
    _ignore_keras_settings()
    provenance.commit()  # of the code that is imported, not of a later `git pull`
    sources.begin()
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with terminal_note("loading TensorFlow"):
        _import_quietly()
    # Several trainings in one process trace the same code several times, which is no mistake.
    sys.modules["tensorflow"].get_logger().addFilter(lambda record: "tf.function retracing" not in record.getMessage())


def _import_quietly() -> None:
    """Import TensorFlow; show its messages only if that fails."""
    # TensorFlow's C++ code writes to the descriptor itself, so sys.stderr cannot be replaced.
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            sink.seek(0)
            os.write(saved, sink.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _ignore_keras_settings() -> None:
    """Make results independent of the user's settings of Keras."""
    # No keras.json is read: its floatx and image_data_format would change the numbers of a run.
    os.environ["KERAS_HOME"] = os.devnull
    # TensorBoard uses `tf.keras`, which must be the Keras that `lts` uses.
    os.environ["TF_USE_LEGACY_KERAS"] = "0"


def define_data_flags(
    required: bool = True, cache: bool = True, split: bool = True, shrink: bool = True, images: str = IMAGES
) -> None:
    """Define the flags of the images.

    Args:
      required: whether --dataset must be given.
      cache: whether images are used more than once, for --cache_gb and --cache_dir.
      split: whether there is one split, for --split.
      shrink: whether images may be shrunk, for --stored_size and --cache_dir.
      images: help of --dataset.
    """
    with field_flags.group("Data"):
        paths.define_dataset("dataset", images, required=required)
        if split:
            flags.DEFINE_string("split", None, "splits as tfds writes them, such as unlabelled+train[:80%]")
        paths.define("data_dir", None, "folder of tfds' data sets")
        flags.DEFINE_bool("skip_broken_images", False, "skip images that cannot be read, instead of stopping")
        if cache:
            flags.DEFINE_float("cache_gb", None, "memory for decoded images; none: half of what is free", 0)
        if shrink:
            flags.DEFINE_integer("stored_size", None, STORED_SIZE, 0)
        if cache and shrink:
            paths.define("cache_dir", None, CACHE_DIR)


def open_source(image: configs.ImageConfig, dataset: str | None = None) -> Any:
    """Return the images of the data flags or `dataset`; `image` decides how far they are shrunk."""
    import_tensorflow()
    from lts import data

    return data.open_source(dataset or FLAGS.dataset, FLAGS.split, **data_options(image))


def data_options(image: configs.ImageConfig) -> dict[str, Any]:
    """Return the options of `lts.data.open_source` that the data flags give."""
    options = {name: FLAGS[name].value for name in ("data_dir", "skip_broken_images", "cache_gb", "cache_dir")}
    return options | {"stored_size": stored_size(image)}


def stored_size(image: configs.ImageConfig) -> int:
    """Return the shorter side in pixels to which larger images are shrunk; 0: none is."""
    if FLAGS.stored_size is None:
        return image.stored_size
    if 0 < FLAGS.stored_size < image.stored_size:
        _warn_of_enlarged_crops(FLAGS.stored_size, image.stored_size)
    return FLAGS.stored_size


@functools.cache  # a program may open several data sets
def _warn_of_enlarged_crops(chosen: int, lossless: int) -> None:
    warn(f"crops of shrunk images are enlarged. Received: stored_size={chosen}. From {lossless} pixels on none is.")


def image_config(model: Any, image_size: int | None = None) -> configs.ImageConfig:
    """Return the configuration of the images that a loaded model was trained on, for another size of them if given."""
    return dataclasses.replace(model.config.image, image_size=image_size or model.image_size)


def refuse(names: Iterable[str], mode: str) -> None:
    """Refuse flags that have no effect.

    Args:
      names: of the flags.
      mode: what was asked for instead, in words that follow "with".

    Raises:
      UsageError: one of the flags was given.
    """
    for name in names:
        if FLAGS[name].present:
            raise UsageError(f"--{name} does not go with {mode}. Received: --{name}={FLAGS[name].value}. Leave it out.")


def _refuse_data_flags() -> None:
    """Refuse flags of the images that have no effect, for example on the kind of --dataset."""
    kind = (FLAGS.dataset or "").partition(":")[0] if "dataset" in FLAGS else ""
    names = NO_EFFECT_ON.get(kind, ())
    refuse([name for name in names if name in FLAGS], f"--dataset={kind}")
    if "cache_dir" in FLAGS and FLAGS.stored_size == 0:
        refuse(["cache_dir"], "--stored_size=0")


def print_broken(names: Sequence[str]) -> None:
    """Print the names of skipped images."""
    if names:
        print(f"{len(names)} broken images were skipped: {', '.join(map(printable, names))}", flush=True)
