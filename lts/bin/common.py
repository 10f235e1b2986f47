"""What all binaries share: the start, errors as one line, flags of the configuration and of the data."""

import dataclasses
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from lts import config as configs
from lts.config.options import MonitoringOptions
from lts.utils.errors import UserError, first_line

FLAGS = flags.FLAGS


class UsageError(UserError):
    """Flags that cannot be."""

    exit_status = 2


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def run(main: Callable[..., int | None], arguments: bool = False) -> None:
    """Runs a binary's `main` and leaves with its exit status.

    Wrong flags and every `UserError` become one line on stderr; Ctrl-C and SIGTERM outside
    of training leave with 130 and 143, and nothing half-written.

    Args:
      main: of the binary.
      arguments: `main` takes what is on the command line besides flags, as a list; otherwise that is refused.
    """

    def terminate(*_) -> None:
        raise _Terminated

    def guarded(argv: Sequence[str]) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # names of files that the locale cannot show
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        signal.signal(signal.SIGTERM, terminate)
        try:
            if len(argv) > 1 and not arguments:
                raise UsageError(f"unexpected argument {argv[1]!r}: everything is given as --flag=value")
            status = (main(argv[1:]) if arguments else main()) or 0
        except UserError as error:
            status = _complain(error, error.exit_status)
        except OSError as error:
            status = _complain(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1)
        except _tensorflow_errors() as error:
            status = _complain(first_line(error), 1)
        except _Terminated:
            status = _complain("terminated", 143)
        except KeyboardInterrupt:
            status = _complain("interrupted", 130)
        sys.stdout.flush()
        sys.exit(status)

    for module, defined in FLAGS.flags_by_module_dict().items():
        for flag in () if module.startswith("absl.") else defined:
            FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # --help shows what other modules defined, too
    app.run(guarded, flags_parser=_parse)


def _tensorflow_errors() -> tuple:
    """What TensorFlow raises when a file, a disk or a device fails; nothing if it was not imported."""
    tensorflow = sys.modules.get("tensorflow")
    return () if tensorflow is None else (tensorflow.errors.OpError,)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        missing = re.findall(r"flag --(\w+)=None: Flag --\1 must have a value", str(error))
        sys.exit(_complain(f"give --{', --'.join(missing)}" if missing else error, 2))


def _complain(error: object, status: int) -> int:
    program = os.path.basename(sys.argv[0]).removesuffix(".py")
    print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status


def import_tensorflow() -> None:
    """Imports TensorFlow without the lines it writes to stderr at every start.

    Binaries call it when their flags are known to be right: a wrong one is answered at once.
    TF_CPP_MIN_LOG_LEVEL, if set, is respected and shows them all; a failing import shows them too.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
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


def define_data_flags(required: bool = True, cache: bool = True) -> None:
    """--dataset, --split, --data_dir, --skip_broken_images and, unless images are used once, --cache_gb."""
    flags.DEFINE_string("dataset", None, "synthetic | tfds:NAME | folder:PATH", required=required)
    flags.DEFINE_string("split", None, "splits as tfds writes them, as unlabelled+train[:80%]")
    flags.DEFINE_string("data_dir", None, "where tfds keeps its data")
    flags.DEFINE_bool("skip_broken_images", False, "leave out images that cannot be read, instead of stopping")
    if cache:
        flags.DEFINE_float("cache_gb", None, "memory for decoded images; none: half of what is free", lower_bound=0)


def open_source(dataset: str | None = None) -> Any:
    """The images that the data flags name; `dataset` takes the place of --dataset."""
    import_tensorflow()
    from lts import data

    return data.open_source(
        dataset or FLAGS.dataset,
        FLAGS.split,
        data_dir=FLAGS.data_dir,
        skip_broken_images=FLAGS.skip_broken_images,
        cache_gb=FLAGS.cache_gb,
    )


def define_config_flags(*sections: str) -> None:
    """--preset, and a flag for each configuration field of the sections."""
    flags.DEFINE_string("preset", None, f"named configuration: {' | '.join(configs.PRESETS)}")
    for _, field in configs.fields_of(*sections):
        shown = field.default
        if isinstance(shown, tuple):
            shown = ",".join(f"{value:g}" for value in shown)
        help = f"{field.metadata['help']}; in preset release: {shown}"
        define = flags.DEFINE_bool if field.type is bool else flags.DEFINE_string
        define(field.name, None, help)


def overrides(*sections: str) -> dict[str, Any]:
    """The configuration fields that were given as flags."""
    names = [field.name for _, field in configs.fields_of(*sections)]
    return {name: FLAGS[name].value for name in names if FLAGS[name].value is not None}


def define_training_flags() -> None:
    """--workdir and the intervals of a training run."""
    flags.DEFINE_string("workdir", None, "folder of the run; a run that is in it goes on", required=True)
    for field in dataclasses.fields(MonitoringOptions):
        given, least = (field.name, field.default, field.metadata["help"]), 0 if field.name == "histogram_steps" else 1
        if field.name == "profile_steps":
            flags.DEFINE_list(*given)
        elif field.type is float:
            flags.DEFINE_float(*given, lower_bound=0)
        else:
            flags.DEFINE_integer(*given, lower_bound=least)
    flags.DEFINE_string("replicas", "auto", "auto: all GPUs; N: so many GPUs, or logical devices of a CPU, for tests")


def train(config: configs.Config, stage: str, **options: Any) -> int:
    """Prints the configuration, opens the data and trains; returns the exit status, 128 + signal when stopped."""
    intervals = {field.name: FLAGS[field.name].value for field in dataclasses.fields(MonitoringOptions)}
    intervals["profile_steps"] = _profile_steps()
    import_tensorflow()
    from lts import training

    strategy = training.build_strategy(FLAGS.replicas)
    print(f"configuration (preset {config.preset}):\n{describe(config)}", flush=True)
    source, beside = open_source(), MonitoringOptions(**intervals)
    result = training.train(config, stage, source, FLAGS.workdir, options=beside, strategy=strategy, **options)
    if source.broken:
        print(f"{len(source.broken)} broken images were skipped: {', '.join(source.broken)}", flush=True)
    if result.signal is None:
        return 0
    print("run the same command again to go on", flush=True)
    return 128 + result.signal


def _profile_steps() -> tuple[int, int] | None:
    """--profile_steps as numbers."""
    if FLAGS.profile_steps is None:
        return None
    try:
        first, last = map(int, FLAGS.profile_steps)
        if not 0 < first <= last:
            raise ValueError
    except ValueError:
        given = ",".join(FLAGS.profile_steps)
        raise UsageError(f"profile_steps must be two steps, the first first. Received: {given}") from None
    return first, last


def describe(config: configs.Config) -> str:
    """The configuration, a line a section."""
    lines = []
    for section in (*configs.SECTIONS, *configs.STAGES):
        fields = vars(getattr(config, section)).items()
        lines.append(f"  {section}: " + " ".join(f"{name}={value}".replace(" ", "") for name, value in fields))
    return "\n".join(lines)
