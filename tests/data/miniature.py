"""Miniature data sets in the published layouts: same folders, file types, encodings and `.mat` structures."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

CONTEXT_NAMES = {
    2: "aeroplane", 23: "bicycle", 25: "bird", 31: "boat", 34: "bottle", 45: "bus", 59: "car", 65: "cat",
    72: "chair", 98: "cow", 397: "table", 113: "dog", 207: "horse", 258: "motorbike", 284: "person",
    308: "pottedplant", 347: "sheep", 368: "sofa", 416: "train", 427: "tvmonitor", 187: "grass", 360: "sky",
    162: "floor",
}  # fmt: skip


def write_png(path: Path, array: np.ndarray) -> None:
    """Lossless file; colours are given as RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_palette_png(path: Path, ids: np.ndarray) -> None:
    """Index file with a colour palette, as PASCAL VOC ships them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette([(31 * i + 17 * c) % 256 for i in range(256) for c in range(3)])
    image.save(path)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def save_npy(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def blobs(rng: np.random.Generator, size: tuple[int, int], ids: list[int]) -> np.ndarray:
    """Map of a few rectangles."""
    height, width = size
    result = np.full(size, ids[0], dtype=np.int64)
    for value in ids[1:]:
        top, left = rng.integers(0, height - 3), rng.integers(0, width - 3)
        result[top : top + height // 2, left : left + width // 2] = value
    return result


def nyud(root: Path, *, packaging: str = "invpt", size: tuple[int, int] = (17, 23)) -> Path:
    """Three training and two test frames."""
    rng = np.random.default_rng(0)
    splits = {"train": ["0003", "0001", "0007"], "val": ["0002", "0005"]}
    for split, ids in splits.items():
        write_lines(root / "gt_sets" / f"{split}.txt", ids)
        for name in ids:
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            label = blobs(rng, size, [0, 1, 5, 40])
            label[0, :2] = (0, 40)
            depth = rng.uniform(0.8, 9, size).astype(np.float32)
            normals = rng.normal(size=(*size, 3))
            normals /= np.linalg.norm(normals, axis=2, keepdims=True)
            edge = (rng.random(size) < 0.1).astype(np.uint8)
            write_png(root / "segmentation" / f"{name}.png", label.astype(np.uint8))
            if packaging == "invpt":
                write_png(root / "images" / f"{name}.png", image)
                write_png(root / "edge" / f"{name}.png", edge * 255)
                encoded = np.round((normals + 1) / 2 * 255).astype(np.uint8)
                write_png(root / "normals" / f"{name}.png", encoded)
            else:
                (root / "images").mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(root / "images" / f"{name}.jpg", quality=95)
                save_npy(root / "edge" / f"{name}.npy", edge.astype(np.float32))
                normals[0, 0] = 0
                save_npy(root / "normals" / f"{name}.npy", normals.astype(np.float32))
            depth[0, 0] = 0
            save_npy(root / "depth" / f"{name}.npy", depth)
    return root


def part_objects(objects: list[tuple[str, int, np.ndarray, list[tuple[str, np.ndarray]]]]) -> np.ndarray:
    """PASCAL-Part struct array (1, N): class, class_ind, mask, parts."""
    fields = [(name, object) for name in ("class", "class_ind", "mask", "parts")]
    result = np.zeros((1, len(objects)), dtype=fields)
    for position, (name, category, mask, parts) in enumerate(objects):
        inner = np.zeros((1, len(parts)), dtype=[("part_name", object), ("mask", object)])
        for number, (part, part_mask) in enumerate(parts):
            inner[0, number] = (part, part_mask.astype(np.uint8))
        content = inner if parts else np.zeros((0, 0))
        result[0, position] = (name, category, mask.astype(np.uint8), content)
    return result


def save_parts(path: Path, objects: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"anno": {"imname": path.stem, "objects": objects}}, do_compression=True)


def box(size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def example_parts(size: tuple[int, int]) -> np.ndarray:
    """A dog with a head, a person without parts, a person whose later parts overwrite earlier ones."""
    everything = box(size, 0, 0, *size)
    person = [
        ("head", box(size, 1, 1, 4, 5)),
        ("torso", box(size, 3, 1, 8, 5)),
        ("llarm", box(size, 4, 5, 6, 8)),
        ("rfoot", box(size, 9, 1, 11, 3)),
    ]
    return part_objects(
        [
            ("dog", 12, everything, [("head", everything)]),
            ("person", 15, everything, []),
            ("person", 15, everything, person),
        ]
    )


def pascal(root: Path, *, size: tuple[int, int] = (18, 24)) -> Path:
    """Three training and two test photographs; only two of them show a person with parts."""
    rng = np.random.default_rng(1)
    splits = {"train": ["2008_000008", "2008_000002", "2010_000101"], "val": ["2008_000003", "2009_000009"]}
    with_parts = {"2008_000002", "2009_000009"}
    in_voc12 = {"2008_000002", "2008_000003"}
    for split, ids in splits.items():
        write_lines(root / "ImageSets" / "Context" / f"{split}.txt", ids)
        for name in ids:
            (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            semseg = blobs(rng, size, [0, 15, 12])
            semseg[0, 0] = 255
            folder = "VOC12" if name in in_voc12 else "pascal-context"
            write_palette_png(root / "semseg" / folder / f"{name}.png", semseg)
            if name in in_voc12:  # a second, different file that must not be read
                write_palette_png(root / "semseg" / "pascal-context" / f"{name}.png", np.zeros(size))
            label_map = blobs(rng, size, [360, 284, 427])
            target = root / "pascal-context" / "trainval" / f"{name}.mat"
            target.parent.mkdir(parents=True, exist_ok=True)
            savemat(target, {"LabelMap": label_map.astype(np.uint16)}, do_compression=True)
            objects = example_parts(size) if name in with_parts else part_objects(
                [("dog", 12, box(size, 2, 2, 6, 6), [("head", box(size, 2, 2, 4, 4))])]
            )  # fmt: skip
            save_parts(root / "human_parts" / f"{name}.mat", objects)
            normals = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            write_png(root / "normals_distill" / f"{name}.png", normals)
            saliency = rng.choice([0, 100, 127, 128, 255], size).astype(np.uint8)
            write_png(root / "sal_distill" / f"{name}.png", saliency)
    return root


def cityscapes(root: Path, *, size: tuple[int, int] = (16, 32)) -> Path:
    """Two cities and three images for training, one for validation."""
    rng = np.random.default_rng(2)
    stems = {
        "train": ["zurich_000001_000019", "aachen_000010_000019", "aachen_000002_000019"],
        "val": ["munster_000000_000019"],
    }
    for split, names in stems.items():
        for stem in names:
            city = stem.split("_")[0]
            ids = rng.choice([0, 4, 7, 10, 11, 23, 24, 26, 33], size).astype(np.uint8)
            disparity = rng.choice([0, 1, 257, 2561, 30000], size).astype(np.uint16)
            write_png(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png",
                      rng.integers(0, 256, (*size, 3), dtype=np.uint8))  # fmt: skip
            write_png(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", ids)
            third = (np.arange(size[0])[:, None] * 3 // size[0]).astype(np.uint16)  # the last has no numbers
            instances = np.where((ids >= 24) & (third < 2), ids * np.uint16(1000) + third, ids)
            write_png(root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png",
                      instances.astype(np.uint16))  # fmt: skip
            target = root / "disparity" / split / city / f"{stem}_disparity.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), disparity)
    return root


def cityscapes_zips(folder: Path) -> Path:
    """The three archives as downloaded, members relative to the root."""
    source = cityscapes(folder / "unpacked")
    for kind in ("leftImg8bit", "gtFine", "disparity"):
        with zipfile.ZipFile(folder / f"{kind}_trainvaltest.zip", "w") as archive:
            archive.writestr("README", "text")
            for path in sorted((source / kind).rglob("*.png")):
                archive.write(path, path.relative_to(source).as_posix())
    return folder


def mtan(root: Path, *, kind: str = "nyuv2", size: tuple[int, int] = (12, 16), count: int = 12) -> Path:
    """`count` training and two test arrays, numbered without padding, so that 10 sorts after 9."""
    rng = np.random.default_rng(3)
    for split, number in (("train", count), ("val", 2)):
        for i in range(number):
            image = rng.random((*size, 3))
            image[0, 0] = i / 255
            save_npy(root / split / "image" / f"{i}.npy", image)
            depth = rng.uniform(0.01, 0.49, (*size, 1))
            depth[0, :3] = 0
            save_npy(root / split / "depth" / f"{i}.npy", depth)
            if kind == "nyuv2":
                save_npy(root / split / "label" / f"{i}.npy", rng.integers(-1, 13, size).astype(np.float64))
                normal = rng.normal(size=(*size, 3))
                normal /= np.linalg.norm(normal, axis=2, keepdims=True)
                normal[0, 0] = 0
                normal[0, 1] = (0.5, -0.5, 0.0)
                save_npy(root / split / "normal" / f"{i}.npy", normal)
            else:
                save_npy(root / split / "label_7" / f"{i}.npy", rng.integers(-1, 7, size).astype(np.float64))
                save_npy(
                    root / split / "label_19" / f"{i}.npy", rng.integers(-1, 19, size).astype(np.float64)
                )
    return root


def nyu_release(folder: Path, *, count: int = 5) -> Path:
    """`nyu_depth_v2_labeled.mat` (MATLAB 7.3: HDF5, axes reversed), `splits.mat` and `classMapping40.mat`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(4)
    height, width = 480, 640
    yy, xx = np.mgrid[:height, :width]
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        images = file.create_dataset("images", (count, 3, width, height), np.uint8)
        depths = file.create_dataset("depths", (count, width, height), np.float32)
        labels = file.create_dataset("labels", (count, width, height), np.uint16)
        instances = file.create_dataset("instances", (count, width, height), np.uint8)
        for i in range(count):
            images[i] = (rng.integers(0, 256, (3, 1, 1)) + np.zeros((3, width, height))).astype(np.uint8)
            images[i, :, 40, 45] = (10 + i, 20, 30)  # the corner pixel of the crop
            depths[i] = (2 + 0.001 * xx + 0.002 * yy).T
            label = np.where(xx < 300, 21, 894).astype(np.uint16)
            label[100:200, 100:200] = 0
            labels[i] = label.T
            instances[i] = np.where(yy < 240, 1, 2).T
    savemat(
        folder / "splits.mat",
        {"trainNdxs": np.array([[1], [4], [5]], np.uint16), "testNdxs": np.array([[2], [3]], np.uint16)},
    )
    mapping = np.full((1, 894), 40, np.uint8)
    mapping[0, 20] = 1  # class 21 ("wall" of the 894) is class 1 of the 40
    savemat(folder / "classMapping40.mat", {"mapClass": mapping})
    return folder


def voc_release(folder: Path, *, size: tuple[int, int] = (18, 24)) -> Path:
    """VOC2010, VOC2012, PASCAL-Context and PASCAL-Part side by side, as unpacked from their archives."""
    source = pascal(folder / "packaged", size=size)
    voc = folder / "VOCdevkit" / "VOC2010"
    for split in ("train", "val"):
        ids = (source / "ImageSets" / "Context" / f"{split}.txt").read_text().split()
        write_lines(voc / "ImageSets" / "Main" / f"{split}.txt", ids)
    (voc / "JPEGImages").mkdir(parents=True)
    for path in (source / "JPEGImages").iterdir():
        path.rename(voc / "JPEGImages" / path.name)
    segmentation = folder / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    segmentation.mkdir(parents=True)
    for path in (source / "semseg" / "VOC12").iterdir():
        path.rename(segmentation / path.name)
    (source / "pascal-context" / "trainval").rename(folder / "trainval")
    (source / "human_parts").rename(folder / "Annotations_Part")
    names = {i: CONTEXT_NAMES.get(i, f"thing{i}") for i in range(1, 460)}
    write_lines(folder / "labels.txt", [f"{i}: {name}" for i, name in names.items()])
    return folder


def mosd(root: Path, *, size: tuple[int, int] = (24, 32)) -> Path:
    """Two frames a split of a table with two objects, as `prepare_dataset` writes them."""
    rng = np.random.default_rng(0)
    label = np.ones(size, np.uint8)
    label[8:16, 8:14], label[8:16, 14:20], label[:, -4:] = 20, 30, 0
    depth = np.where(label > 0, 1200 + np.arange(size[1]), 0).astype(np.uint16)
    normals = np.where(label[..., None] > 0, [0.0, 0.6, 0.8], np.nan).astype(np.float16)
    (root / "normals").mkdir(parents=True)
    for name in ("learn0", "learn1", "test0", "test1"):
        write_png(root / "rgb" / f"{name}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        write_png(root / "depth" / f"{name}.png", depth)
        write_png(root / "label" / f"{name}.png", label)
        np.save(root / "normals" / f"{name}.npy", normals)
    return root


def bsds_sod(root: Path, *, size: tuple[int, int] = (24, 32)) -> Path:
    """Two photographs a split with boundaries of five people and a mask, as `prepare_dataset` writes them."""
    rng = np.random.default_rng(0)
    drawn = np.zeros(size, np.uint16)
    for annotator in range(5):
        drawn[:, 8 + annotator] |= 1 << annotator
    mask = np.zeros(size, np.uint8)
    mask[:, 8:] = 255
    for name, split in (("100", "train"), ("101", "train"), ("200", "val"), ("201", "val")):
        image = root / "images" / split / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(image)
        write_png(root / "annotators" / f"{name}.png", drawn)
        write_png(root / "saliency" / f"{name}.png", mask)
    return root


def camvid(root: Path, *, size: tuple[int, int] = (24, 32)) -> Path:
    """Two images a split, all classes and void."""
    rng = np.random.default_rng(0)
    label = np.broadcast_to(np.arange(size[0])[:, None] % 12, size).astype(np.uint8)
    for split in ("train", "val", "test"):
        for index in range(2):
            name = f"0001TP_{index:06}.png"
            write_png(root / split / name, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            write_png(root / f"{split}annot" / name, label)
    return root
