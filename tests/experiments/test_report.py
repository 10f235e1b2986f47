"""README's tables are those of the committed results; made-up results make the tables that they should."""

import copy
import json
import pathlib
import subprocess
import sys

import pytest

from experiments import report
from experiments.reporting import results as result_files
from experiments.reporting import tables
from experiments.reporting.results import ReportError, Results
from lts.config import preset

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = "python -m experiments.report experiments/results/*.json --readme=README.md"
PUBLISHED = result_files.published()


def committed():
    """The committed results by name."""
    paths = sorted((ROOT / "experiments" / "results").glob("small*.json"))
    return {path.stem: result_files.load(path) for path in paths}


@pytest.fixture
def results():
    return committed()


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_bytes().decode()


def probe(name="ours", protocol="rotnet", dataset="tfds:imagenet2012", split="validation", **accuracies):
    """Made-up results of a probe; `accuracies` by layer, as fractions."""
    accuracies = accuracies or {"conv_1": 0.2, "conv_5": 0.3486}
    layers = {layer: {"accuracy": value, "interval": [0, 1]} for layer, value in accuracies.items()}
    images = {"train_images": 10, "test_images": 5, "train_fingerprint": "a", "test_fingerprint": "b"}
    values = {
        "protocol": {"name": protocol, "classifier": "sgd"},
        "dataset": {"name": dataset, "classes": ["x", "y"], "test_split": split, **images},
        "layers": list(layers),
        "model": {"path": "runs/features", "fingerprint": "1", "description": {}, "layers": layers},
        "baselines": [],
    }
    return Results(name, "probe", values)


def test_readme_holds_the_tables_of_the_committed_results(results, readme):
    filled = report.fill(readme, list(results.values()), PUBLISHED)
    assert filled == readme, f"README.md's tables are not those of experiments/results. Run: {COMMAND}"
    assert COMMAND in readme


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("small_imagenette128", ("model", "layers", "conv_3", "accuracy")),
        ("small_imagenette128_norepair", ("difference", "conv_5", "accuracy")),
        ("small_imagenette128_float32", ("baseline_mean", "conv_2", "accuracy")),
        ("small_spotting_kept30", ("mask_map", "auroc", "value")),
        ("small_spotting_kept70", ("kinds", "photograph", "called_repaired")),
    ],
)
def test_an_altered_figure_is_noticed(results, readme, name, place):
    values = copy.deepcopy(results[name].values)
    record = values
    for key in place[:-1]:
        record = record[key]
    record[place[-1]] += 0.001
    results[name] = Results(name, results[name].kind, values)
    before, after = readme.splitlines(), report.fill(readme, list(results.values()), PUBLISHED).splitlines()
    assert len(before) == len(after)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


def test_a_figure_altered_in_readme_is_put_right(results, readme):
    wrong = readme.replace("| **61.5** |", "| **71.5** |").replace("| 69.8** |", "| 79.8** |")
    assert wrong != readme
    assert report.fill(wrong, list(results.values()), PUBLISHED) == readme


def test_committed_results_name_no_machine():
    for path in (ROOT / "experiments" / "results").glob("small*.json"):
        text = path.read_text()
        assert not any(f'"{start}' in text for start in ("/", "folder:/", "~")), path


def test_published_tables_are_whole():
    for table in PUBLISHED.values():
        assert table["source"]
        assert all(len(row["values"]) == len(table["columns"]) for row in table["rows"])
        assert table["paper"] in [row["method"] for row in table["rows"]]


def test_what_was_not_measured_is_blank():
    for table in PUBLISHED.values():
        rows = tables.published_table(table)
        assert rows[-1] == [f"ours, {table['ours']}", *[""] * len(table["columns"])]
        assert not any("difference" in row[0] for row in rows)
    assert tables.published_table(PUBLISHED["stl10"])[1][1:] == ["", ""]
    assert "| Larsson et al. | 65.9 | | 38.0 |" in report.text([], PUBLISHED)


def test_difference_to_the_paper_where_protocol_and_images_are_the_same():
    rows = tables.published_table(PUBLISHED["imagenet"], [probe()])
    assert rows[-2:] == [
        ["**`runs/features`**", "**20.0**", "", "", "", "**34.9**"],
        ["difference to the paper's", "+0.5", "", "", "", "+0.0"],  # 34.86 - 34.9: no minus before a zero
    ]
    assert ["ours, preset `imagenet`", *[""] * 5] not in rows


@pytest.mark.parametrize(
    "other",
    [{"protocol": "ridge"}, {"protocol": None}, {"dataset": "folder:imagenet2012"}, {"split": "validation[:1%]"}],
)
def test_no_difference_to_the_paper_otherwise(other):
    assert not tables.matches_protocol(probe(**other), PUBLISHED["imagenet"])
    text = report.text([probe(**other)], PUBLISHED)
    assert "difference" not in text
    assert "| ours, preset `imagenet` | | | | | |" in text
    assert "| **`runs/features`** | **20.0** | **34.9** |" in text


def test_results_without_a_classifier_of_all_layers_leave_blanks():
    rows = tables.probe_table([probe(conv_1=0.5, conv_2=None).values])
    assert rows == [["", "conv_1", "conv_2"], ["**`runs/features`**", "**50.0**", ""]]


def test_models_are_named_by_what_differs_from_their_preset(results):
    names = {name: each.values["model"] for name, each in results.items() if each.kind == "probe"}
    assert tables.model_name(names["small_imagenette128"]) == "ours, preset `small`"
    model = copy.deepcopy(names["small_imagenette128_norepair"])
    model["description"]["seed"] = 2
    model["description"]["config"]["image"]["crop_area"] = [0.5, 1.0]
    changed = "`--crop_area=0.5,1.0`, `--norepair`, `--norecalibrate_batch_norm`, `--seed=2`"
    assert tables.model_name(model) == f"ours, preset `small`, {changed}"
    model["description"] |= {"weights": "random", "config": {"preset": "of tomorrow"}, "seed": 1}
    assert tables.model_name(model) == "random initialisation, preset `of tomorrow`"


def test_results_are_grouped_by_what_one_table_can_hold(results):
    groups = tables.groups(results.values())
    assert [[each.name.removeprefix("small_") for each in group] for group in groups] == [
        ["ablate"],
        ["compare"],
        ["imagenette128"],
        ["imagenette128_few_shot"],
        ["imagenette128_float32"],
        ["imagenette128_knn"],
        ["imagenette128_norepair", "imagenette128_training_statistics"],
        ["spotting_kept30", "spotting_kept70"],
        ["voc_classification"],
        ["voc_detection"],
        ["voc_segmentation"],
    ]
    reverse = [results["small_spotting_kept70"], results["small_spotting_kept30"]]
    assert tables.table(reverse)[0] == ["cells kept", "30 %", "70 %"]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("no table at all", "of 0 tables"),
        ("<!-- table: imagenet -->\n", "of 1 tables .* 0 end"),
        ("<!-- table: imagenet -->\n<!-- table: voc -->\n<!-- end -->", "of 2 tables .* 1 end"),
        ("<!-- table:  -->\n<!-- end -->", "no table ''"),
        ("<!-- table: cifar -->\n<!-- end -->", "no table 'cifar'"),
        ("<!-- table: stl10 ours -->\n<!-- end -->", "no table 'stl10 ours'"),
        ("<!-- table: voc ours -->\n<!-- end -->", "needs ours.json, of kind voc"),
        ("<!-- table: probe other -->\n<!-- end -->", "needs other.json, of kind probe"),
        ("<!-- table: spotting ours -->\n<!-- end -->", "needs ours.json, of kind spotting"),
        ("<!-- table: spotting -->\n<!-- end -->", "needs results of its kind"),
        ("<!-- table: probe -->\n<!-- end -->", "one table cannot hold .*: ours, theirs"),
        ("<!-- table: probe ours -->\n<!-- end -->", "no table holds theirs"),
    ],
)
def test_marks_and_results_that_do_not_go_together(page, message):
    with pytest.raises(ReportError, match=message):
        report.fill(page, [probe(), probe("theirs", protocol="ridge")], PUBLISHED)


def test_what_is_no_results_file_is_said(tmp_path):
    whole = json.loads((ROOT / "experiments/results/small_imagenette128.json").read_text())
    del whole["model"]["layers"]["conv_4"]["accuracy"]
    for content in ("", "{", "\0", "[]", "null", '{"model": 3}', json.dumps(whole)):
        path = tmp_path / "other.json"
        path.write_text(content)
        with pytest.raises(ReportError, match=r"other\.json (is no JSON|holds neither)"):
            result_files.load(path)


def command(*arguments):
    """The binary in a process of its own."""
    line = [sys.executable, "-m", "experiments.report", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_command_prints_tables_and_writes_a_page(tmp_path, readme):
    paths = sorted((ROOT / "experiments" / "results").glob("small*.json"))
    printed = command(*paths)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert readme[readme.index("| mean of 3 random") :].split("\n\n")[0] in printed.stdout
    page = tmp_path / "page.md"
    page.write_text(readme.replace("| **61.4** |", "| **71.4** |"))
    written = command(*paths, f"--readme={page}")
    assert written.stdout == f"{page}: {len(report.TABLE.findall(readme))} tables, written anew\n"
    assert page.read_text() == readme
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_command_ends_with_one_line_when_something_is_wrong(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: imagenet -->\n\n<!-- end -->\n<!-- table: spotting -->\n")
    some = ROOT / "experiments" / "results" / "small_imagenette128.json"
    for arguments, status, said in (
        ((), 2, "give results files"),
        ((some, "--table=imagenet"), 2, "'table'"),
        ((some, some, f"--readme={page}"), 2, "two results files are named small_imagenette128.json"),
        ((tmp_path / "missing.json",), 1, "missing.json"),
        ((page,), 1, "page.md is no JSON"),
        ((some, f"--readme={page}"), 1, "of 2 tables"),
    ):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (status, ""), done
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
    assert page.read_text().count("\n") == 4


def test_few_labels_are_rows_by_share():
    """Each share's mean, model and paired difference, in the order of the shares; differences of the right share."""

    def records(shift):
        return {
            "conv_5": {
                share: {"accuracy": accuracy + shift, "interval": [0.0, 0.1]}
                for share, accuracy in (("1 %", 0.3), ("10 %", 0.5))
            }
        }

    config = preset("small").to_dict()
    results = {
        "model": {"path": "a", "description": {"config": config}, "layers": records(0.0)},
        "baselines": [{"path": "b", "description": {"weights": "random", "config": config}}],
        "baseline_mean": records(-0.1),
        "difference": records(0.2),
    }
    rows = tables.few_shot_table([results])
    cells = ["20.0", "**30.0**", "+50.0 [0.0, 10.0]", "40.0", "**50.0**", "+70.0 [0.0, 10.0]"]
    assert [row[1] for row in rows] == ["conv_5", *cells]
    assert rows[1][0].startswith("1 % of the labels: random initialisation")
    assert rows[4][0].startswith("10 % of the labels: ")


def voc(task, value, **changed):
    """Made-up results of a VOC task by the protocol of its published column."""
    wanted = PUBLISHED["voc"]["voc_protocols"][task] | changed
    images = {key: wanted[key] for key in ("train_split", "test_split", "train_images", "test_images")}
    record = {"value": value, "interval": [value - 0.01, value + 0.01], "per_class": {}}
    values = {
        "task": wanted["task"],
        "measure": "mAP",
        "protocol": {"name": wanted["protocol"]},
        "dataset": {"name": "folder:VOC", "train_fingerprint": "a", "test_fingerprint": "b", **images},
        "classes": [str(number) for number in range(wanted["classes"])],
        "models": [{"path": "runs/features", "fingerprint": "1", "description": {}, "baseline": False, **record}],
    }
    return Results(f"ours_{task}", "voc", values)


def test_voc_tasks_of_one_model_are_one_row_beside_the_paper():
    results = [voc("classification", 0.7), voc("segmentation", 0.3)]
    rows = tables.published_table(PUBLISHED["voc"], results)
    assert rows[-2:] == [
        ["**`runs/features`**", "**70.0**", "", "**30.0**"],
        ["difference to the paper's", "+0.2", "", "-8.1"],
    ]
    assert tables.table([results[0]])[1][:2] == ["**`runs/features`**", "**70.0 [69.0, 71.0]**"]


@pytest.mark.parametrize(
    "changed", [{"protocol": "custom"}, {"test_images": 4951}, {"classes": 2}, {"train_split": "train"}]
)
def test_voc_results_of_other_protocols_or_images_are_not_ours(changed):
    assert not tables.matches_protocol(voc("classification", 0.7, **changed), PUBLISHED["voc"])
