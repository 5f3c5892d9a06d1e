"""Folders in VOC and COCO layout: what is read, and what each defect says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seernet.config import DataConfig
from seernet.data import Dataset, prepare
from seernet.data.sources import list_source
from seernet.errors import DataError

XML = """<annotation>
  <folder>elsewhere</folder><filename>wrong-name.png</filename>
  <path>C:\\Users\\someone\\{stem}.jpg</path>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  {objects}
</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
  <xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def thing(name, *corners, difficult=0):
    return OBJECT.format(*corners, name=name, difficult=difficult)


class Folder:
    """A folder in VOC layout; images are 40 x 30 pixels."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.noise = np.random.default_rng(0)
        for name in ("Annotations", "JPEGImages"):
            (root / name).mkdir(parents=True)

    def image(self, stem: str, size: tuple[int, int] = (40, 30)) -> None:
        pixels = self.noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.root / "JPEGImages" / f"{stem}.png")

    def annotate(self, stem: str, *objects: str, width: int = 40, height: int = 30) -> None:
        text = XML.format(stem=stem, width=width, height=height, objects="\n".join(objects))
        (self.root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")

    def both(self, stem: str, *objects: str) -> None:
        self.image(stem)
        self.annotate(stem, *objects)

    def lists(self, **names: list[str]) -> None:
        folder = self.root / "ImageSets" / "Main"
        folder.mkdir(parents=True)
        for name, stems in names.items():
            (folder / f"{name}.txt").write_text("\n".join(stems) + "\n", encoding="utf-8")

    def config(self, **changes) -> DataConfig:
        return DataConfig(**{"name": "voc", "path": str(self.root), "image_size": 20} | changes)

    def listing(self, **changes):
        return list_source(self.config(**changes))


@pytest.fixture
def folder(tmp_path):
    """Twelve images with a cat each, every other one with a dog."""
    made = Folder(tmp_path / "data")
    for number in range(12):
        dog = [thing("dog", 21, 1, 40, 30)] if number % 2 else []
        made.both(f"{number:02d}", thing("cat", 1, 1, 10, 20), *dog)
    return made


def test_corners_count_from_one_and_paths_of_other_machines_are_ignored(folder):
    listing = folder.listing()
    assert listing.classes == ("cat", "dog")
    assert listing.names[1] == "JPEGImages/01.png"
    assert listing.boxes.corners[listing.boxes.images == 1].tolist() == [
        [0.0, 0.0, 10.0, 20.0],
        [20.0, 0.0, 40.0, 30.0],
    ]
    assert listing.labels[:4].tolist() == [0, 1, 0, 1]  # the rarest class of each image
    assert listing.complaints == listing.warnings == ()


def test_without_lists_splits_are_seeded_and_disjoint(folder, tmp_path):
    counts = []
    for seed in (0, 0, 1):
        out = tmp_path / f"prepared{len(counts)}"
        info = prepare(
            folder.config(search_fraction=0.2, test_fraction=0.25), seed, out, 2, progress=False
        )
        counts.append(((out / "test.safetensors").read_bytes(), info.counts))
    assert sum(counts[0][1].values()) == 12
    assert min(counts[0][1].values()) >= 2
    assert counts[0] == counts[1]
    assert counts[0][0] != counts[2][0]


def test_prepared_boxes_are_scaled_with_their_images(folder, tmp_path):
    prepare(folder.config(), 0, tmp_path / "out", 2, progress=False)
    dataset = Dataset.open(tmp_path / "out", torch.device("cpu"), 0)
    images, targets = next(iter(dataset.loader("test", 12).epoch(0)))
    assert images.shape[1:] == (3, 20, 20)
    for target in targets:  # 40 x 30 becomes 20 x 20
        assert target["boxes"][0].tolist() == pytest.approx([0.0, 0.0, 5.0, 40 / 3], abs=1e-4)


def test_files_and_memory_give_the_same_batches(folder, tmp_path):
    batches = []
    for storage in ("memory", "files"):
        prepare(folder.config(storage=storage), 0, tmp_path / storage, 2, progress=False)
        dataset = Dataset.open(tmp_path / storage, torch.device("cpu"), 0)
        batches.append(next(iter(dataset.loader("train", 4).epoch(0))))
    assert torch.equal(batches[0][0], batches[1][0])
    for one, other in zip(batches[0][1], batches[1][1], strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (("train", "val", "test"), {"train": 4, "search": 4, "test": 4}),
        (("train", "val"), {"train": 4, "test": 4}),
        (("trainval", "test"), {"train": 4, "test": 4}),
        (("train", "trainval", "val"), {"train": 4, "test": 4}),
    ],
)
def test_lists_decide_splits(folder, lists, expected):
    stems = [f"{number:02d}" for number in range(12)]
    parts = {"train": stems[:4], "trainval": stems[:4], "val": stems[4:8], "test": stems[8:]}
    folder.lists(**{name: parts[name] for name in lists})
    listing = folder.listing()
    names, counts = np.unique(listing.splits, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == expected
    left_out = any("no list names" in warning for warning in listing.warnings)
    assert left_out == (len(listing) < 12)


@pytest.mark.parametrize(
    ("corners", "says"),
    [
        ((30, 5, 60, 20), "a part outside of the image"),
        ((30, 5, 20, 20), "swapped corners"),
        ((5, 5, 5, 20), "no area"),
        (("nan", 5, 9, 20), "no number"),
    ],
)
def test_bad_boxes_are_refused_or_dropped(folder, corners, says):
    folder.both("bad", thing("cat", 1, 1, 5, 5), thing("cat", *corners))
    (complaint,) = folder.listing().complaints
    assert says in complaint
    assert "Annotations/bad.xml" in complaint
    assert "data.bad_boxes: drop" in complaint
    listing = folder.listing(bad_boxes="drop")
    assert listing.complaints == ()
    assert says in listing.warnings[0]
    assert (listing.boxes.images == 12).sum() == 1


def test_box_at_the_very_edge_is_kept_inside(folder):
    folder.both("edge", thing("cat", 0, 0, 41, 31))
    listing = folder.listing()
    assert listing.complaints == ()
    assert listing.boxes.corners[-1].tolist() == [0.0, 0.0, 40.0, 30.0]


def test_class_that_is_not_named_is_a_defect(folder):
    (complaint,) = folder.listing(classes=["cat"]).complaints
    assert "a class that is not in data.classes (dog)" in complaint
    listing = folder.listing(classes=["cat"], bad_boxes="drop")
    assert listing.classes == ("cat",)
    assert set(listing.boxes.labels.tolist()) == {0}


def turned(path: Path, orientation: int) -> None:
    """Say in an image's header that it is to be turned."""
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def test_boxes_of_the_upright_image_fit_a_turned_one(folder):
    folder.image("phone")
    folder.annotate("phone", thing("cat", 1, 1, 30, 35), width=30, height=40)
    turned(folder.root / "JPEGImages" / "phone.png", 6)
    listing = folder.listing()
    assert listing.complaints == ()
    assert listing.sizes[-1].tolist() == [40, 30]  # as it is read
    assert listing.read(12).image.size == (30, 40)


def test_boxes_of_the_stored_image_are_ambiguous_once_it_is_turned(folder):
    folder.both("phone", thing("cat", 1, 1, 35, 30))
    turned(folder.root / "JPEGImages" / "phone.png", 6)
    (complaint,) = folder.listing().complaints
    assert "their boxes are ambiguous: JPEGImages/phone.png; save them upright" in complaint
    assert len(folder.listing(bad_boxes="drop")) == 12


def test_class_may_be_common_as_long_as_it_is_seen_often_enough(folder, tmp_path):
    """A cat is in every image, and never the rarest class beside a dog: no shortage."""
    for number in range(0, 12, 2):
        folder.annotate(f"{number:02d}", thing("cat", 1, 1, 10, 20), thing("dog", 21, 1, 40, 30))
    info = prepare(folder.config(), 0, tmp_path / "out", 2, progress=False)
    assert info.counts["test"] >= 1
    folder.both("empty")
    prepare(folder.config(), 0, tmp_path / "out", 2, progress=False)


def test_class_that_is_hardly_seen_in_training_is_named(folder, tmp_path):
    folder.both("rare", thing("emu", 1, 1, 10, 20))
    with pytest.raises(DataError, match=r"at least 3 training images.*too few in 'emu' \(1\)"):
        prepare(folder.config(), 0, tmp_path / "out", 2, progress=False)


def test_lists_without_a_train_list_leave_the_others_to_train(folder):
    folder.lists(test=["00", "01"], val=["02"])
    splits = folder.listing().splits.tolist()
    assert splits == ["test", "test", "search", *["train"] * 9]


def test_lists_may_hold_endings_flags_and_spaces(folder):
    folder.both("my cat 0", thing("cat", 1, 1, 10, 20))
    folder.lists(train=["00.png", "01  1", "my cat 0"], test=["02 -1"])
    listing = folder.listing()
    assert listing.names == [f"JPEGImages/{name}.png" for name in ("00", "01", "02", "my cat 0")]
    assert listing.complaints == ()


@pytest.mark.parametrize("place", ["ImageSets/Main", "ImageSets"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_other_tools_are_read(folder, place, encoding):
    (folder.root / place).mkdir(parents=True)
    lines = {
        "Train": ["00.png", "01", "C:\\photos\\02.jpg"],
        "Valid": ["JPEGImages\\03.png"],
        "Test": ["my cat 06 -1"],
    }
    folder.both("my cat 06", thing("cat", 1, 1, 10, 20))
    for name, names in lines.items():
        path = folder.root / place / f"{name}.txt"
        path.write_bytes("\r\n".join(names).encode(encoding))
    listing = folder.listing()
    assert listing.complaints == ()
    assert listing.splits.tolist() == ["train"] * 3 + ["search", "test"]
    assert listing.names[4] == "JPEGImages/my cat 06.png"


def test_lists_that_are_not_read_are_named(folder):
    folder.lists(training=["00"], holdout=["01"], cat_train=["00"])
    (complaint,) = folder.listing().complaints
    assert "2 lists are called neither train, val" in complaint
    assert "holdout.txt, training.txt; name them so" in complaint
    assert "lists of single classes divide nothing" in "".join(folder.listing().warnings)
    everything = "\n".join(f"{number:02d}" for number in range(12))
    (folder.root / "ImageSets" / "Main" / "default.txt").write_text(everything)
    assert folder.listing().complaints == (complaint,)  # that one divides nothing
    (folder.root / "ImageSets" / "Main" / "train.txt").write_text("00\n01\n")
    listing = folder.listing()
    assert listing.complaints == ()
    assert any("not read: holdout.txt" in warning for warning in listing.warnings)
    (folder.root / "ImageSets" / "Main" / "Train.txt").write_text("02\n")
    (complaint,) = folder.listing().complaints
    assert "lists are of train images beside another: train.txt; keep one" in complaint


def test_folders_may_have_other_names(folder):
    (folder.root / "Annotations").rename(folder.root / "annots")
    (folder.root / "JPEGImages").rename(folder.root / "pictures")
    assert len(folder.listing()) == 12
    (folder.root / "more").mkdir()
    (folder.root / "annots" / "00.xml").rename(folder.root / "more" / "00.xml")
    with pytest.raises(DataError, match=r"has no annotations.*arrange it as"):
        folder.listing()


def test_files_in_subfolders_are_not_passed_over(folder):
    (folder.root / "JPEGImages" / "more").mkdir()
    path = folder.root / "JPEGImages" / "00.png"
    path.rename(path.parent / "more" / "00.png")
    complaints = "\n".join(folder.listing().complaints)
    assert "subfolders of JPEGImages, which are not read: JPEGImages/more/00.png" in complaints


def test_class_of_which_no_box_is_left_is_refused(folder, tmp_path):
    config = folder.config(classes=["Cat", "dog"], bad_boxes="drop")
    with pytest.raises(
        DataError, match=r"no usable box is of 'Cat'; correct the annotations, or name the"
    ):
        prepare(config, 0, tmp_path / "out", 2, progress=False)


def test_every_split_that_is_held_out_shows_every_class(folder, tmp_path):
    """A bird is in three images, each with a rarer emu: alone it would decide no image's split."""
    emus = [thing("emu", 1, 1, 10, 20)]
    for number in range(9):
        birds = [thing("bird", 21, 1, 40, 30)] * (4 if number < 3 else 0)
        folder.both(f"far {number}", *emus, *birds)
    for seed in range(10):
        out = tmp_path / f"{seed}"
        info = prepare(folder.config(), seed, out, 2, progress=False)
        assert not any("no image of the split" in warning for warning in info.warnings)
        dataset = Dataset.open(out, torch.device("cpu"), 0)
        for split in ("train", "search", "test"):
            shown = torch.cat([t["labels"] for t in dataset.loader(split, 1).images.targets])
            assert sorted(set(shown.tolist())) == [0, 1, 2, 3]


def test_class_that_is_only_difficult_is_refused(folder, tmp_path):
    for number in range(5):
        folder.both(f"far {number}", thing("emu", 1, 1, 10, 20, difficult=1))
    with pytest.raises(DataError, match=r"too few in 'emu' \(0\)"):
        prepare(folder.config(), 0, tmp_path / "out", 2, progress=False)


def test_split_of_ones_own_that_lacks_a_class_is_told(folder, tmp_path):
    folder.lists(train=["00", "01", "03", "05", "07"], test=["02", "04"])
    info = prepare(folder.config(), 0, tmp_path / "out", 2, progress=False)
    assert "no image of the split test shows 'dog'" in info.warnings


def test_images_that_share_an_annotation_are_refused(folder):
    path = folder.root / "JPEGImages" / "00.png"
    Image.open(path).save(path.with_suffix(".jpg"))
    Image.open(path).save(path.with_name("01.jpg"))
    (complaint,) = folder.listing().complaints
    assert complaint.startswith("2 pairs would share one annotation: JPEGImages/00.jpg and JPEG")
    assert "JPEGImages/01.jpg and JPEGImages/01.png; rename one" in complaint


def test_box_of_which_nothing_is_left_inside_has_no_area(folder):
    folder.both("bad", thing("cat", 1, 1, 5, 5), thing("cat", 41.2, 1, 41.4, 20))
    (complaint,) = folder.listing().complaints
    assert "boxes have no area: Annotations/bad.xml" in complaint


def test_detectors_want_square_images(folder, tmp_path):
    with pytest.raises(DataError, match=r"square images, and these are 30 x 40"):
        prepare(folder.config(image_size=None), 0, tmp_path / "out", 2, progress=False)


def test_corrected_sizes_make_another_data_set(tmp_path):
    prints = []
    for name, size in (("a", (40, 30)), ("b", (80, 60))):
        made = Folder(tmp_path / name)
        for number in range(6):
            made.image(f"{number}", size)
            made.annotate(f"{number}", thing("cat", 1, 1, 9, 9), width=size[0], height=size[1])
        out = tmp_path / f"{name}-out"
        prints.append(prepare(made.config(), 0, out, 2, progress=False).fingerprint)
    assert prints[0] != prints[1]


def test_difficult_objects_are_crowds(folder):
    folder.both("far", thing("cat", 1, 1, 5, 5, difficult=1))
    assert folder.listing().boxes.crowd.sum() == 1


def test_every_other_defect_names_its_file(folder):
    folder.annotate("lonely", thing("cat", 1, 1, 5, 5))
    folder.image("small", (20, 20))
    folder.annotate("small", thing("cat", 1, 1, 5, 5))
    (folder.root / "Annotations" / "broken.xml").write_text("<annotation>", encoding="utf-8")
    folder.image("broken")
    (folder.root / "JPEGImages" / "torn.png").write_bytes(b"\x89PNG")
    folder.annotate("torn", thing("cat", 1, 1, 5, 5))
    folder.both("nothing")
    folder.image("unannotated")
    listing = folder.listing()
    text = "\n".join(listing.complaints)
    for says in (
        "annotations have no image: Annotations/lonely.xml",
        "annotations give another size than the image has: Annotations/small.xml "
        "(40 x 30, the image 20 x 20)",
        "annotations cannot be read: Annotations/broken.xml",
        "images cannot be read: JPEGImages/torn.png",
    ):
        assert says in text
    notes = "\n".join(listing.warnings)
    assert (
        "images without boxes: two-stage detectors learn background from them, SSDs nothing: "
        "JPEGImages/nothing.png"
    ) in notes
    assert "without an annotation are left out: JPEGImages/unannotated.png" in notes
    dropped = folder.listing(bad_boxes="drop")
    assert len(dropped.complaints) == 2  # what cannot be read stays an error
    assert "lonely" in "\n".join(dropped.warnings)


def test_folder_without_annotations_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"no annotations \(\*\.xml\); arrange it as"):
        list_source(DataConfig(name="voc", path=str(tmp_path)))
    with pytest.raises(DataError, match="must be a folder"):
        list_source(DataConfig(name="voc", path=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("inside", ["", "Annotations", "annotations"])
def test_a_folder_for_each_split_is_read(folder, tmp_path, inside):
    root = tmp_path / "export"
    parts = {"train": range(8), "valid": range(8, 10), "test": range(10, 12)}
    for part, numbers in parts.items():
        (root / part / inside).mkdir(parents=True)
        (root / part / ("images" if inside else "")).mkdir(exist_ok=True)
        for number in numbers:
            # A name may stand in several folders.
            xml = root / part / inside / f"{number % 2}-{number // 2 if part == 'train' else 0}.xml"
            shutil.copy(folder.root / f"Annotations/{number:02d}.xml", xml)
            image = root / part / ("images" if inside else "") / f"{xml.stem}.png"
            shutil.copy(folder.root / f"JPEGImages/{number:02d}.png", image)
    listing = list_source(DataConfig(name="voc", path=str(root), image_size=20))
    assert not listing.complaints
    place = "images/" if inside else ""
    assert listing.names[:2] == [f"test/{place}0-0.png", f"test/{place}1-0.png"]
    assert listing.splits.tolist() == ["test"] * 2 + ["train"] * 8 + ["search"] * 2
    assert len(listing.boxes.labels) == 18


@pytest.mark.parametrize("beside", ["ImageSets", "images", "Annotations"])
def test_a_folder_called_train_divides_nothing_where_the_layout_is_the_usual_one(
    folder, tmp_path, beside
):
    root = tmp_path / "data with train"
    shutil.copytree(folder.root, root)
    (root / "JPEGImages").rename(root / "images")
    if beside == "ImageSets":  # images and annotations in `train`, lists beside it
        (root / "train").mkdir()
        for path in sorted(root.glob("*/*.*")):
            path.rename(root / "train" / path.name)
        (root / "ImageSets").mkdir()
        (root / "ImageSets" / "test.txt").write_text("00\n01\n", encoding="utf-8")
    elif beside == "images":
        (root / "Annotations").rename(root / "train")
    else:
        shutil.copytree(folder.root, root / "train")
    listing = list_source(DataConfig(name="voc", path=str(root), image_size=20))
    assert not listing.complaints
    assert len(listing.names) == 12
    assert listing.splits.tolist().count("test") == (2 if beside == "ImageSets" else 0)


def test_folders_of_other_names_and_images_without_annotations_are_named(folder, tmp_path):
    for part in ("train", "holdout", "test"):
        shutil.copytree(folder.root, tmp_path / "export" / part)
    shutil.rmtree(tmp_path / "export/test/Annotations")
    listing = list_source(DataConfig(name="voc", path=str(tmp_path / "export"), image_size=20))
    (complaint,) = listing.complaints
    assert "folders are called neither train, val nor test: holdout" in complaint
    assert any("without an annotation are left out" in text for text in listing.warnings)


def test_two_folders_of_one_split_are_refused(folder, tmp_path):
    for part in ("train", "val", "valid"):
        shutil.copytree(folder.root, tmp_path / "export" / part)
    listing = list_source(DataConfig(name="voc", path=str(tmp_path / "export"), image_size=20))
    assert any("folders are of val images beside another" in text for text in listing.complaints)


def test_images_beside_their_annotations_are_found(tmp_path):
    made = Folder(tmp_path / "data")
    for number in range(6):
        made.both(f"{number}", thing("cat", 1, 1, 10, 20))
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (*made.root.glob("*/*.png"), *made.root.glob("*/*.xml")):
        path.rename(flat / path.name)
    assert len(list_source(DataConfig(name="voc", path=str(flat)))) == 6


# --- COCO ---


def coco(root: Path, kind: str, count: int, extra: list[dict] = ()) -> dict:
    """Write a COCO part of images of 40 x 30 with one box each."""
    folder = root / f"{kind}2017"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(len(kind))
    images, annotations = [], []
    for number in range(count):
        name = f"{number:03d}.jpg"
        pixels = noise.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        images.append({"id": number + 7, "file_name": name, "width": 40, "height": 30})
        category = 90 if number % 3 else 18
        box = [4.0, 5.0, 10.0, 12.5]
        annotations.append(
            {"id": number, "image_id": number + 7, "category_id": category, "bbox": box}
        )
    document = {
        "images": images,
        "annotations": [*annotations, *extra],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 18, "name": "dog"}],
    }
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / f"instances_{kind}2017.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return document


def test_coco_is_read(tmp_path):
    crowd = {"id": 99, "image_id": 7, "category_id": 90, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    coco(tmp_path, "train", 9, [crowd])
    coco(tmp_path, "val", 4)
    listing = list_source(DataConfig(name="coco", path=str(tmp_path)))
    assert listing.classes == ("dog", "zebra")  # in the order of ids
    assert listing.boxes.corners[0].tolist() == [4.0, 5.0, 14.0, 17.5]
    assert listing.boxes.crowd.tolist().count(True) == 1
    assert (listing.splits == "test").sum() == 4
    assert listing.names[0] == "train2017/000.jpg"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"image_id": 7, "category_id": 90, "bbox": [0, 0, 0, 5]}, "no area"),
        ({"image_id": 7, "category_id": 90, "bbox": [30, 0, 30, 5]}, "outside of the image"),
        (
            {"image_id": 7, "category_id": 55, "bbox": [0, 0, 5, 5]},
            "a class that no training image shows",
        ),
        ({"image_id": 7, "category_id": 90}, "no four numbers"),
        ({"image_id": 1234, "category_id": 90, "bbox": [0, 0, 5, 5]}, "belong to no image"),
    ],
)
def test_defects_of_coco_are_refused_or_dropped(tmp_path, extra, says):
    coco(tmp_path, "train", 6, [{"id": 99, **extra}])
    (complaint,) = list_source(DataConfig(name="coco", path=str(tmp_path))).complaints
    assert says in complaint
    config = DataConfig(name="coco", path=str(tmp_path), bad_boxes="drop")
    listing = list_source(config)
    assert listing.complaints == ()
    assert says in "\n".join(listing.warnings)
    assert len(listing.boxes.labels) == 6


def test_coco_sizes_are_held_against_the_images(tmp_path):
    document = coco(tmp_path, "train", 6)
    path = tmp_path / "annotations" / "instances_train2017.json"
    document["images"][0] |= {"width": 400, "height": 300}
    del document["images"][1]["width"]
    path.write_text(json.dumps(document))
    listing = list_source(DataConfig(name="coco", path=str(tmp_path)))
    (complaint,) = listing.complaints
    assert "(400 x 300, the image 40 x 30)" in complaint
    assert listing.sizes.tolist() == [[30, 40]] * 6


def test_coco_categories_of_one_name_are_one_class(tmp_path):
    document = coco(tmp_path, "train", 6)
    document["categories"][1]["name"] = "zebra"
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(document))
    assert list_source(DataConfig(name="coco", path=str(tmp_path))).classes == ("zebra",)


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_coco_entry_that_lacks_something_is_named(tmp_path, part):
    document = coco(tmp_path, "train", 3)
    key = {"images": "file_name", "annotations": "category_id", "categories": "name"}[part]
    del document[part][0][key]
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=f"an entry of {part} has no {key}"):
        list_source(DataConfig(name="coco", path=str(tmp_path)))


@pytest.mark.parametrize("prefix", ["train2017/", "images/train2017/", "C:\\data\\"])
def test_coco_file_names_may_carry_folders(tmp_path, prefix):
    document = coco(tmp_path, "train", 9)
    for image in document["images"]:
        image["file_name"] = prefix + image["file_name"]
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    listing = list_source(DataConfig(name="coco", path=str(tmp_path)))
    assert listing.complaints == ()
    assert len(listing) == 9


def test_coco_file_under_two_ids_is_refused(tmp_path):
    document = coco(tmp_path, "train", 9)
    document["images"].append({**document["images"][0], "id": 99})
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    complaints = list_source(DataConfig(name="coco", path=str(tmp_path))).complaints
    assert "named by two images" in complaints[0]


def test_coco_file_of_no_split_is_refused(tmp_path):
    coco(tmp_path, "train", 9)
    coco(tmp_path, "holdout", 4)
    with pytest.raises(DataError, match=r"is of no split: 'holdout2017' begins with none of train"):
        list_source(DataConfig(name="coco", path=str(tmp_path)))


def test_two_files_of_one_split_are_refused(tmp_path):
    coco(tmp_path, "train", 3)
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.with_name("instances_train2018.json").write_text(path.read_text())
    with pytest.raises(DataError, match="are both of the train split"):
        list_source(DataConfig(name="coco", path=str(tmp_path)))


def test_coco_without_its_parts_is_explained(tmp_path):
    with pytest.raises(DataError, match="no annotations of training images"):
        list_source(DataConfig(name="coco", path=str(tmp_path)))
    coco(tmp_path, "train", 3)
    (tmp_path / "train2017" / "001.jpg").unlink()
    (complaint,) = list_source(DataConfig(name="coco", path=str(tmp_path))).complaints
    assert "are missing: train2017/001.jpg" in complaint
    (tmp_path / "annotations" / "instances_train2017.json").write_text("[]")
    with pytest.raises(DataError, match="is not a COCO file of instances"):
        list_source(DataConfig(name="coco", path=str(tmp_path)))


@pytest.mark.parametrize(
    ("encoding", "head"),
    [
        ("utf-8", '<annotation xmlns="https://example.org/voc" verified="yes">'),
        ("utf-8", "written by a tool\n<?xml version='1.0'?>\n<annotation>"),
        ("utf-8", "<annotation><source>A & B &lt; C</source>"),
        ("cp1252", "<annotation><source>caf\u00e9</source>"),
        ("gb18030", '<?xml version="1.0" encoding="gb2312"?><annotation><source>\u732b</source>'),
        ("utf-16", '<?xml version="1.0" encoding="utf-16"?><annotation>'),
    ],
)
def test_annotations_of_other_tools_are_read(folder, encoding, head):
    file = folder.root / "Annotations" / "01.xml"
    expected = folder.listing().boxes.corners.tolist()
    text = file.read_text(encoding="utf-8").replace("<annotation>", head, 1)
    file.write_bytes(text.encode(encoding))
    listing = folder.listing()
    assert listing.complaints == listing.warnings == ()
    assert listing.boxes.corners.tolist() == expected


def test_what_is_no_annotation_is_named(folder):
    (folder.root / "Annotations" / "00.xml").write_text("<kml><object/></kml>", encoding="utf-8")
    (complaint,) = folder.listing().complaints
    assert "00.xml (its root is <kml>, not <annotation>)" in complaint


def test_an_object_without_corners_is_a_bad_box(folder):
    polygon = "<object><name>cat</name><polygon><x1>3</x1></polygon></object>"
    folder.both("odd", thing("cat", 1, 1, 5, 5), polygon, thing("dog", "", 1, "5,5", 5))
    (complaint,) = folder.listing().complaints
    assert "2 boxes have no four corners: Annotations/odd.xml cat ['', '', '', '']" in complaint
    listing = folder.listing(bad_boxes="drop")
    assert (listing.boxes.images == listing.names.index("JPEGImages/odd.png")).sum() == 1


def test_boxes_over_the_edge_are_cut_where_that_is_asked_for(folder):
    outside = thing("cat", 60, 5, 70, 9)
    folder.both("odd", thing("cat", 11, -20, 51, 20), outside)
    (complaint,) = folder.listing().complaints
    assert "2 boxes have a part outside of the image" in complaint and "clip:" in complaint
    listing = folder.listing(bad_boxes="clip")
    assert listing.complaints == ()
    cut, left_out = listing.warnings
    assert "1 boxes reach over the edge, and are cut there: Annotations/odd.xml cat" in cut
    assert "1 boxes left out, which have nothing inside of the image" in left_out
    place = listing.names.index("JPEGImages/odd.png")
    assert listing.boxes.corners[listing.boxes.images == place].tolist() == [
        [10.0, 0.0, 40.0, 20.0]
    ]


def test_images_that_were_resized_since_they_were_annotated_are_left_out(folder):
    folder.image("resized")
    folder.annotate("resized", thing("cat", 1, 1, 10, 10), width=400, height=300)
    folder.image("odd")
    folder.annotate("odd", thing("cat", 1, 1, 10, 10), width=41, height=41)
    folder.image("rounded", (399, 300))
    folder.annotate("rounded", thing("cat", 1, 1, 10, 10), width=400, height=300)
    (complaint,) = folder.listing().complaints
    assert "3 annotations give another size" in complaint
    listing = folder.listing(bad_boxes="drop")
    assert {"JPEGImages/odd.png", "JPEGImages/rounded.png"} <= {*listing.names}
    assert "JPEGImages/resized.png" not in listing.names
    assert "at another size, and are left out: Annotations/resized.xml" in "".join(listing.warnings)


def test_names_that_differ_in_case_or_hold_the_ending_belong_together(folder):
    folder.image("IMG_1")
    folder.annotate("img_1", thing("cat", 1, 1, 5, 5))
    folder.image("second")
    folder.annotate("second.jpg", thing("cat", 1, 1, 5, 5))
    folder.image("A")
    folder.both("a", thing("cat", 1, 1, 5, 5))
    listing = folder.listing()
    assert listing.complaints == ()
    assert {"JPEGImages/IMG_1.png", "JPEGImages/second.png", "JPEGImages/a.png"} <= {*listing.names}
    (warning,) = listing.warnings
    assert warning == "1 images without an annotation are left out: JPEGImages/A.png"


def test_hidden_folders_beside_images_are_passed_over(folder):
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (folder.root / "JPEGImages" / name).mkdir()
        shutil.copy(folder.root / "JPEGImages/00.png", folder.root / "JPEGImages" / name)
    assert folder.listing().complaints == ()


@pytest.mark.parametrize("name", ["{}.txt", "{}_list.txt"])
def test_lists_beside_the_folders_are_read(folder, name):
    for part, stems in {"train": ["00", "01", "02"], "val": ["03"], "test": ["04", "05"]}.items():
        lines = [f"JPEGImages/{stem}.png Annotations/{stem}.xml" for stem in stems]
        (folder.root / name.format(part)).write_text("\n".join(lines), encoding="utf-8")
    (folder.root / "labels.txt").write_text("cat\ndog\n", encoding="utf-8")
    listing = folder.listing()
    assert listing.complaints == ()
    assert listing.splits.tolist() == ["train"] * 3 + ["search"] + ["test"] * 2


def test_a_split_of_ones_own_without_a_box_that_counts_is_refused_at_once(folder, tmp_path):
    folder.both("hard", thing("cat", 1, 1, 5, 5, difficult=1))
    folder.lists(train=[f"{number:02d}" for number in range(12)], test=["hard"])
    with pytest.raises(DataError, match="no image of the split test has a box that counts"):
        prepare(folder.config(), 0, tmp_path / "out", 2, progress=False)


def test_classes_that_may_be_one_and_boxes_that_vanish_are_told(folder, tmp_path):
    for number in range(6):
        folder.both(f"x{number}", thing("Cat", 1, 1, 3, 3), thing("cat", 1, 1, 3, 3))
    config = folder.config(image_size=20)
    info = prepare(config, 0, tmp_path / "out", 2, progress=False)
    warnings = "\n".join(info.warnings)
    assert "differ in case or punctuation only: Cat, cat" in warnings
    assert "40 % of the boxes are less than 4 pixels wide or high at 20 x 20" in warnings


def test_a_coco_image_in_two_files_is_refused(tmp_path):
    coco(tmp_path, "train", 6)
    coco(tmp_path, "test", 3)
    file = tmp_path / "annotations/instances_test2017.json"
    document = json.loads(file.read_text())
    document["images"][0]["file_name"] = "train2017/000.jpg"
    file.write_text(json.dumps(document))
    (complaint,) = list_source(DataConfig(name="coco", path=str(tmp_path))).complaints
    assert "1 images stand in two files: train2017/000.jpg; keep each in one" in complaint


def test_lists_beside_the_folders_that_are_of_something_else_divide_nothing(folder):
    for name, lines in {"train": "/home/me/0001.jpg", "test": "", "val": "notes of mine"}.items():
        (folder.root / f"{name}.txt").write_text(lines + "\n", encoding="utf-8")
    listing = folder.listing()
    assert listing.complaints == ()
    assert set(listing.splits.tolist()) == {"train"}
    assert "3 lists name no annotated image: not read: " in "".join(listing.warnings)
