"""VOC folders against what was written into them; broken files one by one."""

import os
import re

import numpy as np
import pytest
from PIL import ExifTags, Image

from experiments import voc_detection
from experiments.voc import flags as voc_flags
from experiments.voc.data.dataset import VOC_CLASSES, open_voc, read_class_names
from experiments.voc.data.devkit import default_splits, read_annotation
from experiments.voc.data.records import BrokenFile, pixel_boxes
from lts.data import DataError
from tests.fixtures.binaries import flags_of
from tests.fixtures.tiny_devkit import CLASSES, MASK_CLASSES, TinyObject, annotation, write


def open_tiny(root, split="train", task="detection", **options):
    return open_voc(f"folder:{root}", split, task, progress=False, **options)


def corners(ymin, xmin, ymax, xmax, size=(40, 60)):
    return pixel_boxes(np.array([[ymin, xmin, ymax, xmax]], np.float64), size, "a.xml", ("cat",))[0].tolist()


def test_corners_from_one_inclusive_become_half_open_from_zero():
    assert corners(1, 1, 40, 60) == [0, 0, 40, 60]  # the whole image
    assert corners(5, 11, 5 + 9, 11 + 19) == [4, 10, 14, 30]  # 10 rows, 20 columns
    assert corners(39, 1, 40, 2) == [38, 0, 40, 2]
    assert corners(1.5, 1, 10.25, 60) == [0.5, 0, 10.25, 60]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 40, 60), [0, 0, 40, 60]),  # counted from 0: cut
        ((1, 1, 41, 61), [0, 0, 40, 60]),  # one pixel too far: cut
        ((-1, 1, 40, 60), "lies outside its 60x40 image"),
        ((1, 1, 40, 62), "lies outside"),
        ((1, 1, 42, 60), "lies outside"),
        ((50, 70, 60, 80), "lies outside"),
        ((np.nan, 1, 40, 60), "lies outside"),
        ((10, 5, 10, 20), "has no area"),
        ((10, 5, 20, 5), "has no area"),
        ((20, 5, 10, 20), "has no area"),
        ((41, 1, 41, 20), "has no area"),
    ],
)
def test_a_box_must_lie_in_its_image(box, expected):
    if isinstance(expected, list):
        assert corners(*box) == expected
        return
    with pytest.raises(BrokenFile, match=rf"a\.xml: the box of object 1 \(cat\) {expected}.* Received: ymin") as caught:
        corners(*box)
    assert f"= {box[0]:g}, {box[1]:g}, {box[2]:g}, {box[3]:g}" in str(caught.value)


def test_objects_are_those_that_were_written(devkit):
    root, truth = devkit
    opened = open_tiny(root, "train+val")
    assert opened.class_names == CLASSES
    assert opened.ids == tuple(name for name in truth if not name.startswith("test"))
    assert opened.masks is None
    for index, name in enumerate(opened.ids):
        objects = opened.objects[index]
        np.testing.assert_array_equal(objects.boxes, [one.box for one in truth[name]])
        assert [opened.class_names[label] for label in objects.labels] == [one.name for one in truth[name]]
        assert objects.difficult.tolist() == [one.difficult for one in truth[name]]
        assert (objects.boxes.dtype, objects.labels.dtype, objects.difficult.dtype) == (np.float32, np.int64, bool)
        image = opened.read_image(index)
        assert image.shape == (*opened.sizes[index], 3)
        for one in truth[name]:  # the box is where the shape is: its centre has the class's colour
            y, x = (one.box[0] + one.box[2]) // 2, (one.box[1] + one.box[3]) // 2
            assert image[y, x].argmax() == CLASSES.index(one.name)
    assert {(64, 80), (80, 64)} == {tuple(size) for size in opened.sizes.tolist()}


def test_image_labels_follow_vocs_rule(tmp_path):
    """1 as soon as one object is not difficult, -1 for difficult ones alone, 0 for none."""
    root = tmp_path / "set"
    write(root, {"train": 3})
    boxes = [(0, 0, 10, 10), (5, 5, 20, 20), (20, 20, 40, 40)]
    cases = [
        [("cat", True), ("cat", False), ("dog", True)],
        [("cat", False), ("cat", True)],
        [],
    ]
    for index, case in enumerate(cases):
        objects = [TinyObject(name, box, hard) for (name, hard), box in zip(case, boxes, strict=False)]
        height, width = (80, 64) if index % 2 else (64, 80)
        (root / "Annotations" / f"train_{index}.xml").write_text(annotation(objects, height, width))
    opened = open_tiny(root, task="classification", class_names=("bird", "cat", "dog"))
    np.testing.assert_array_equal(opened.image_labels(), [[0, 1, -1], [0, 1, 0], [0, 0, 0]])
    assert [one.boxes.shape for one in opened.objects] == [(3, 4), (2, 4), (0, 4)]


def test_splits_sums_and_slices(devkit):
    root, _ = devkit
    train, val = open_tiny(root, "train"), open_tiny(root, "val")
    assert open_tiny(root, "trainval").ids == open_tiny(root, "train+val").ids == train.ids + val.ids
    assert open_tiny(root, "trainval[7:9]").ids == ("train_7", "val_0")
    assert open_tiny(root, "val[:50%]+train[:1]").ids == ("val_0", "val_1", "train_0")
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("val_3\n\n  train_2  \n")
    assert open_tiny(root, "trainval").ids == ("val_3", "train_2")


def test_the_folder_above_will_do_where_it_holds_one_set(devkit):
    root, _ = devkit
    for path in (root, root.parent, root.parent.parent):
        assert open_tiny(path).paths[0] == str(root / "JPEGImages" / "train_0.jpg")
    write(root.parent / "VOC2012")
    with pytest.raises(DataError, match=r"Received: several, name one of .*VOC2007, .*VOC2012$"):
        open_tiny(root.parent)


def test_parts_are_no_objects_and_fields_come_in_any_order(tmp_path):
    file = tmp_path / "a.xml"
    file.write_text(
        "<annotation><object><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
        "</bndbox></part><bndbox><xmax>8.5</xmax><xmin>3</xmin><ymax>9</ymax><ymin>4</ymin></bndbox>"
        "<name> person </name></object></annotation>"
    )
    annotation = read_annotation(file)
    assert annotation.names == ("person",)
    np.testing.assert_array_equal(annotation.corners, [[4, 3, 9, 8.5]])
    assert annotation.difficult.tolist() == [False]


def rewrite(path, old, new):
    path.write_text(re.sub(old, new, path.read_text(), count=1))


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


def save(path, size=(64, 80), mode="L"):
    Image.new(mode, size[::-1]).save(path)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


NOT_AN_IMAGE = "not an image"
POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 64\nshowpage\n%%EOF\n"
HTML = "<html><body>Not found</body></html>"
BREAKS = [  # task, the file below the root that is broken, how, the message
    ("detection", "Annotations/train_2.xml", lambda path: path.unlink(), "the annotation is missing"),
    ("classification", "Annotations/train_2.xml", lambda path: path.unlink(), "the annotation is missing"),
    ("detection", "Annotations/train_2.xml", cut, "not readable as XML"),
    ("detection", "Annotations/train_2.xml", lambda path: path.write_text(""), "not readable as XML"),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<xmax>.*?</xmax>", "<xmax>500</xmax>"),
        r"the box of object 1 \(dog\) lies outside its 80x64 image",
    ),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<ymin>.*?</ymin>", "<ymin>64</ymin>"),
        r"the box of object 1 \(dog\) has no area",
    ),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<ymin>.*?</ymin>", "<ymin>x</ymin>"),
        r"object 1 \(dog\) must have a number as bndbox/ymin. Received: 'x'",
    ),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<bndbox>.*</bndbox>", ""),
        r"object 1 \(dog\) must have a number as bndbox/ymin. Received: None",
    ),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<name>dog</name>", ""),
        r"object 1 \(without a name\) must have a <name>",
    ),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "dog", "horse"),
        "'horse' is none of the 3 classes, bird, cat, dog",
    ),
    ("detection", "JPEGImages/train_2.jpg", lambda path: path.unlink(), "the image is missing, but its id is listed"),
    ("detection", "JPEGImages/train_2.jpg", lambda path: path.write_text("rubbish"), NOT_AN_IMAGE),
    ("detection", "JPEGImages/train_2.jpg", lambda path: path.write_bytes(b""), NOT_AN_IMAGE),
    ("detection", "JPEGImages/train_2.jpg", lambda path: path.write_text(POSTSCRIPT), NOT_AN_IMAGE),
    ("detection", "JPEGImages/train_2.jpg", pipe, "not a regular file"),
    ("detection", "Annotations/train_2.xml", pipe, "not a regular file"),
    ("segmentation", "SegmentationClass/train_2.png", pipe, "not a regular file"),
    ("detection", "Annotations/train_2.xml", lambda path: path.write_text(HTML), "the root must be <annotation>"),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<annotation>", '<annotation xmlns="http://example.org/voc">'),
        r"the root must be <annotation> without a namespace. Received: <{http://example.org/voc}annotation>",
    ),
    (
        "classification",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<annotation>(.*)</annotation>", r"<annotation><objects>\1</objects></annotation>"),
        "every object must be an <object> directly below <annotation>",
    ),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<object>(.*)</object>", r"<Object>\1</Object>"),
        "every object must be an <object> directly below <annotation>",
    ),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<width>80</width><height>64", "<width>64</width><height>80"),
        r"<size> must be that of .*train_2\.jpg, upright 80x64 pixels. Received: 64x80",
    ),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<width>80</width>", ""),
        "it must have a number as size/width. Received: None",
    ),
    (
        "detection",
        "Annotations/train_2.xml",
        lambda path: rewrite(path, "<difficult>.*?<", "<difficult>maybe<"),
        r"object 1 \(dog\) must have 0 or 1 as difficult. Received: 'maybe'",
    ),
    (
        "segmentation",
        "SegmentationClass/train_2.png",
        lambda path: save(path, mode="RGBA"),
        r"a mask must have a palette or be grey \(mode P or L\). Received: RGBA",
    ),
    ("detection", "JPEGImages/train_2.jpg", cut, "truncated"),
    ("segmentation", "JPEGImages/train_2.jpg", cut, "truncated"),
    ("segmentation", "SegmentationClass/train_2.png", lambda path: path.unlink(), "the mask is missing"),
    ("segmentation", "SegmentationClass/train_2.png", lambda path: path.write_text("rubbish"), NOT_AN_IMAGE),
    ("segmentation", "SegmentationClass/train_2.png", cut, "([Tt]runcated|[Bb]roken)"),
    (
        "segmentation",
        "SegmentationClass/train_2.png",
        lambda path: save(path, (80, 64)),
        "the mask must be as large as its image, 80x64. Received: 64x80",
    ),
    (
        "segmentation",
        "SegmentationClass/train_2.png",
        lambda path: save(path, mode="RGB"),
        r"a mask must have a palette or be grey \(mode P or L\). Received: RGB",
    ),
    (
        "segmentation",
        "SegmentationClass/train_2.png",
        lambda path: Image.fromarray(np.full([64, 80], 4, np.uint8)).save(path),
        "label 4 is none of the 4 classes, background, bird, cat, dog",
    ),
]


@pytest.mark.parametrize(("task", "file", "damage", "message"), BREAKS)
def test_a_broken_file_is_named_or_left_out(devkit, task, file, damage, message):
    root, _ = devkit
    names = {"class_names": MASK_CLASSES if task == "segmentation" else CLASSES}
    whole = open_tiny(root, task=task, **names)
    damage(root / file)
    with pytest.raises(DataError, match=f"^{re.escape(str(root / file))}: .*{message}") as caught:
        open_tiny(root, task=task, **names)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(". Repair the file, or pass --skip_broken_images")
    rest = open_tiny(root, task=task, skip_broken_images=True, **names)
    assert rest.ids == tuple(name for name in whole.ids if name != "train_2")
    assert list(rest.broken) == ["train_2"]
    assert re.search(message, rest.broken["train_2"])
    assert len(rest.objects or rest.masks) == len(rest.paths) == len(rest.sizes) == 7
    assert rest.fingerprint != whole.fingerprint


def write_turned(root, name, orientation=6):
    """Store an image lying, with the EXIF tag that turns it upright."""
    path = root / "JPEGImages" / f"{name}.jpg"
    with Image.open(path) as image:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def test_images_stand_upright(devkit):
    """Fails if boxes and masks of a photo from a telephone lie on the turned picture."""
    root, _ = devkit
    before = open_tiny(root)
    mask_before = open_tiny(root, task="segmentation")
    write_turned(root, "train_2")
    turned = open_tiny(root)
    assert turned.sizes.tolist() == before.sizes.tolist()
    difference = turned.read_image(2).astype(int) - before.read_image(2)
    assert np.abs(difference).mean() < 10
    assert open_tiny(root, task="segmentation").sizes.tolist() == mask_before.sizes.tolist()


def test_files_of_other_systems(devkit):
    """Fails if a byte order mark, another line end, or an ending in upper case makes a file unreadable."""
    root, _ = devkit
    before = open_tiny(root)
    masks_before = open_tiny(root, task="segmentation")
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        for file in list((root / folder).iterdir()):
            file.rename(file.with_suffix(file.suffix.upper()))
    for file in (root / "Annotations").iterdir():
        text = file.read_text().replace("<object>", "\n  <object>\n").replace("<difficult>1", "<difficult> True ")
        file.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    for folder, line_end in (("Main", "\r\n"), ("Segmentation", "\r")):
        file = root / "ImageSets" / folder / "train.txt"
        file.write_bytes(file.read_text().replace("\n", line_end).encode("utf-8-sig"))
    assert open_tiny(root).fingerprint == before.fingerprint
    assert open_tiny(root, task="segmentation").fingerprint == masks_before.fingerprint
    names = root / "names.txt"
    names.write_bytes("bird\r\ncat\r\n".encode("utf-8-sig"))
    assert read_class_names(str(names)) == ("bird", "cat")


def test_lower_case_wins(devkit):
    """Fails if a second file of one id replaces the first."""
    root, _ = devkit
    before = open_tiny(root)
    (root / "Annotations" / "train_2.XML").write_text("<annotation/>")
    (root / "Annotations" / ".train_3.xml").write_text("<annotation/>")
    assert open_tiny(root).fingerprint == before.fingerprint


def test_lists_that_are_no_files(devkit):
    """Fails if a named pipe in place of a list waits forever."""
    root, _ = devkit
    file = root / "ImageSets" / "Main" / "train.txt"
    pipe(file)
    with pytest.raises(DataError, match=r"train\.txt cannot be read \(not a regular file\)"):
        open_tiny(root)
    with pytest.raises(DataError, match="not a regular file"):
        read_class_names(str(file))


def test_broken_images_are_counted_and_listed(devkit, capsys):
    root, _ = devkit
    for name in ("train_2", "train_5"):
        (root / "Annotations" / f"{name}.xml").unlink()
    open_voc(f"folder:{root}", "train", "detection", skip_broken_images=True)
    printed = capsys.readouterr().out
    assert "split train: 6 images, 3 classes (bird, cat, dog), 12 objects (2 difficult)" in printed
    assert re.search(r"skipped 2 broken images: .*train_2\.xml: the annotation is missing; .*train_5\.xml", printed)


def test_an_image_that_only_shows_its_damage_when_decoded_is_named_then(devkit):
    root, _ = devkit
    opened = open_tiny(root)
    cut(root / "JPEGImages" / "train_1.jpg")
    with pytest.raises(DataError, match=r"train_1\.jpg: .*truncated"):
        opened.read_image(1)


def test_bytes_behind_the_end_of_an_image_do_no_harm(devkit):
    """Cameras append previews: the mark of a whole JPEG is then not at the end, and decoding has the last word."""
    root, _ = devkit
    image = root / "JPEGImages" / "train_1.jpg"
    image.write_bytes(image.read_bytes() + bytes(5000))
    assert open_tiny(root).num_examples == 8


def test_images_are_not_decoded(devkit, monkeypatch):
    root, _ = devkit
    decoded = []
    monkeypatch.setattr(Image.Image, "load", lambda image: decoded.append(image))
    open_tiny(root)
    assert decoded == []


ASKED_WRONGLY = [
    ({"split": "vall"}, r"ImageSets/Main has no split 'vall'; it has test, train, val, trainval$"),
    ({"split": "train+train"}, "twice. Received: split='train\\+train'"),
    ({"split": "train[8:]"}, "selects no images"),
    ({"split": "train[x:]"}, "cannot be split"),
    ({"task": "depth"}, r"task must be classification \| detection \| segmentation. Received: task='depth'"),
    ({"dataset": "synthetic"}, "dataset must be folder:PATH or tfds:voc/YEAR. Received: dataset='synthetic'"),
    ({"dataset": "folder:nowhere"}, "folder:nowhere is not a folder"),
    ({"dataset": "tfds:voc/2012", "task": "segmentation"}, "tfds:voc/2012 has no masks. .*folder:PATH"),
]


@pytest.mark.parametrize(("change", "message"), ASKED_WRONGLY)
def test_what_cannot_be_opened(devkit, change, message):
    asked = {"dataset": f"folder:{devkit[0]}", "split": "train", "task": "detection", **change}
    with pytest.raises(DataError, match=message) as caught:
        open_voc(**asked, progress=False)
    assert "\n" not in str(caught.value)


def test_lists_and_folders_that_are_wrong(devkit):
    root, _ = devkit
    lists = root / "ImageSets" / "Main"
    (lists / "cat_train.txt").write_text("train_0  1\n")  # VOC's lists of classes are no splits
    (lists / "twice.txt").write_text("train_0\ntrain_1\ntrain_0\n")
    with pytest.raises(DataError, match="image 'train_0' is listed twice"):
        open_tiny(root, "twice", skip_broken_images=True)
    (lists / "none.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"none\.txt lists no images"):
        open_tiny(root, "none")
    with pytest.raises(DataError, match=r"no split 'dev'; it has none, test, train, twice, val, trainval$"):
        open_tiny(root, "dev")
    for name in ("train_0", "train_1"):
        (root / "Annotations" / f"{name}.xml").write_text("<annotation/>")
    with pytest.raises(DataError, match="no mask has a label but 255, no annotation an object"):
        open_tiny(root, "train[:2]")
    with pytest.raises(DataError, match="no image has an annotated object"):
        open_tiny(root, "train[:2]", class_names=CLASSES)
    for name in ("train_0", "train_1"):
        (root / "Annotations" / f"{name}.xml").unlink()
    with pytest.raises(DataError, match=r"all 2 images are broken; .*train_0\.xml: the annotation is missing"):
        open_tiny(root, "train[:2]", skip_broken_images=True)
    (root / "ImageSets" / "Segmentation").rename(root / "ImageSets" / "Other")
    with pytest.raises(DataError, match="ImageSets/Segmentation is missing"):
        open_tiny(root, task="segmentation")
    (root / "JPEGImages").rename(root / "Images")
    with pytest.raises(DataError, match="JPEGImages is missing"):
        open_tiny(root)


def test_masks_and_their_classes(devkit):
    """Classes are 0 to the greatest label, 255 is none; a palette and grey mean the same."""
    root, _ = devkit
    opened = open_tiny(root, task="segmentation")
    assert opened.class_names == ("0", "1", "2", "3")
    assert opened.objects is None
    masks = [opened.read_mask(index) for index in range(opened.num_examples)]
    for mask, size in zip(masks, opened.sizes, strict=True):
        assert mask.dtype == np.uint8
        assert mask.shape == tuple(size)
    assert set(np.unique(np.concatenate([mask.reshape(-1) for mask in masks]))) == {0, 1, 2, 3, 255}
    for file, mask in zip(opened.masks, masks, strict=True):
        Image.fromarray(mask).save(file)  # grey
    grey = open_tiny(root, task="segmentation")
    assert Image.open(grey.masks[0]).mode == "L"
    assert grey.fingerprint == opened.fingerprint
    np.testing.assert_array_equal(grey.read_mask(3), masks[3])


def test_a_mask_of_255_alone_has_no_class(tmp_path):
    root = tmp_path / "set"
    write(root, {"train": 1})
    Image.fromarray(np.full([64, 80], 255, np.uint8)).save(root / "SegmentationClass" / "train_0.png")
    with pytest.raises(DataError, match="no mask has a label but 255"):
        open_tiny(root, task="segmentation")
    assert open_tiny(root, task="segmentation", class_names=("sky", "road")).num_classes == 2


def test_the_fingerprint_tells_content_from_place(devkit, tmp_path):
    root, _ = devkit
    prints = {task: open_tiny(root, task=task).fingerprint for task in ("detection", "segmentation")}
    moved = root.rename(tmp_path / "moved")
    assert {task: open_tiny(moved, task=task).fingerprint for task in prints} == prints
    rewrite(moved / "Annotations" / "train_4.xml", "<difficult>0", "<difficult>1")
    assert open_tiny(moved).fingerprint != prints["detection"]
    assert open_tiny(moved, class_names=("a", *CLASSES)).fingerprint != open_tiny(moved).fingerprint
    file = moved / "SegmentationClass" / "train_4.png"
    mask = np.array(Image.open(file))
    mask[0, 0] ^= 1
    Image.fromarray(mask).save(file)
    assert open_tiny(moved, task="segmentation").fingerprint != prints["segmentation"]


def test_class_names_of_masks(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("sky\ntraffic light\n\n")
    assert read_class_names(str(file)) == ("sky", "traffic light")
    assert read_class_names("voc", masks=True) == ("background", *VOC_CLASSES)
    assert read_class_names("voc") == VOC_CLASSES
    for text in ("a\n\nb\n", "a\na\n", ""):
        file.write_text(text)
        with pytest.raises(DataError, match="must hold one class name per line"):
            read_class_names(str(file))
    with pytest.raises(DataError, match="must be 'voc' or a text file"):
        read_class_names(str(tmp_path / "missing"))


def test_the_real_sets(real):
    """Counts as the sets' own description gives them."""
    animals, streets = real("animals_voc"), real("camvid_voc")
    for split, images in (("train", 180), ("val", 53), ("test", 79)):
        opened = open_tiny(animals, split, class_names=("kangaroo", "raccoon"))
        assert (opened.num_examples, opened.broken) == (images, {})
        sides = np.concatenate([one.boxes[:, 2:] - one.boxes[:, :2] for one in opened.objects])
        assert sides.min() > 1
        assert set(np.unique(opened.image_labels())) == {0, 1}
    for split, images in (("train", 184), ("val", 51), ("test", 54)):
        opened = open_tiny(streets, split, "segmentation")
        assert (opened.num_examples, opened.num_classes, opened.broken) == (images, 11, {})
    assert 0 in opened.read_mask(0)  # the sky is class 0: no background


@pytest.mark.parametrize(
    ("removed", "splits", "counts"),
    [
        ((), ("trainval", "test"), (12, 4)),
        (("test",), ("train", "val"), (8, 4)),
        (("test", "val"), ("train[all but a fifth]", "train[a fifth]"), (6, 2)),
        (("test", "train", "val"), ("all[all but a fifth]", "all[a fifth]"), (13, 3)),
    ],
)
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_missing_lists(tmp_path, task, removed, splits, counts):
    """Fails if a folder without a test list has no test images, or shares some of them with the training."""
    write(tmp_path)
    for name in removed:
        for folder in ("Main", "Segmentation"):
            (tmp_path / "ImageSets" / folder / f"{name}.txt").unlink()
    if len(removed) == 3:
        for folder in ("Main", "Segmentation"):
            (tmp_path / "ImageSets" / folder).rmdir()
        (tmp_path / "ImageSets").rmdir()
        (tmp_path / "Annotations" / "Thumbs.db").touch()
    assert default_splits(tmp_path, task, "trainval", "test") == splits
    train, test = (open_tiny(tmp_path, split, task) for split in splits)
    assert (train.num_examples, test.num_examples) == counts
    assert not set(train.ids) & set(test.ids)
    assert (train.split, test.split) == splits


def test_the_programs_say_that_they_hold_out_images(tmp_path, capsys):
    """Fails if a held-out test set is not announced, or replaces splits that a user gave."""
    write(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "test.txt").unlink()
    flags = ("--model=x", f"--dataset=folder:{tmp_path}", f"--output={tmp_path / 'out'}")
    with flags_of(voc_detection, *flags):
        assert voc_flags.choose_splits("detection") == ("train", "val")
    assert "has no split test: training on train, testing on val" in capsys.readouterr().out
    (tmp_path / "ImageSets" / "Main" / "val.txt").unlink()
    with flags_of(voc_detection, *flags):
        assert voc_flags.choose_splits("detection") == ("train[all but a fifth]", "train[a fifth]")
    assert "a fifth of the images is held out for the test" in capsys.readouterr().out
    with flags_of(voc_detection, *flags, "--test_split=train[6:]"):
        assert voc_flags.choose_splits("detection") == ("trainval", "train[6:]")
    assert capsys.readouterr().out == ""
