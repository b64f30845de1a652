"""Rows of `docs/data_problems.md` that tests carry as markers: what people have, what the suite does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

problem = pytest.mark.problem
Row = pytest.MarkDecorator


def marked(names: Iterable[str], rows: Sequence[tuple[Row, Sequence[str]]]) -> list[Any]:
    """Cases of a test that belong to several rows.

    Args:
        names: of the cases.
        rows: (row, how names of its cases begin).
    """
    return [
        pytest.param(
            name,
            marks=[row for row, starts in rows if row is not None and name.startswith(tuple(starts))],
        )
        for name in names
    ]


# What a value means
EDGE_LEVELS = problem(
    "values",
    have="edge maps of 0 and 1, 0 and 255 or 0 and 65535; 1 to 16 bits, palette, TIFF, NPY of any type",
    does="reads two levels as a mask, whatever the levels and the type, and says so",
)
MASK_LEVELS = problem(
    "values",
    have="masks of 0 and 1 or of 0 and 255 for two classes; 16-bit PNG, int64 NPY and others",
    does='reads 0 and 1; refuses 0 and 255, which may mean "no label", until `encoding=` says it',
)
RARE_STORAGE = problem(
    "values",
    have="a few masks with other bits or another format than the rest of the folder",
    does='names the first such file; with `encoding="mask"` reads each by its own levels',
)
SOFT_MAPS = problem(
    "values",
    have="soft maps of 8 or 16 bits, integers, or real numbers up to 1 or 255",
    does="reads shares of the range",
)
SOFT_TOPS = problem(
    "values",
    have="soft maps that end at 5, 100 or 4095, logits, or a mixture of 0/1 and 0/255",
    does="refuses them and names the option that settles it",
)
LOSSY = problem(
    "values",
    have="masks, class ids and depth stored as JPEG or WebP",
    does="cuts masks of two levels at half; refuses ids and depth",
)
NORMALS_SHIFTED = problem(
    "values",
    have="normals as 0..1 or 0..255 in real numbers",
    does='refuses them until `encoding="shifted"`; training stops before its first step',
)
DEPTH_UNITS = problem(
    "values",
    have="depth in millimetres or centimetres: PNG, TIFF, NPY, integers or real numbers",
    does="asks for `scale=`; training stops before its first step",
)
EDGES_AT_START = problem(
    "values",
    have="edges that end far below 1, are inverted, or have no edge",
    does="stops before the first step and says what the maps hold",
)
DEPTH_MARKS = problem(
    "values",
    have='a number for "no reading" among depths, e.g. 65535, 65.535 or 1e10',
    does="names it and `invalid=` when the data set is made and in the check",
)
NORMALS_MARKS = problem(
    "values",
    have="normals whose invalid pixels are black, gray or white",
    does="names the colour and `invalid=`; with it these pixels have no label",
)
DEEP_PHOTOGRAPHS = problem(
    "values",
    have="16-bit photographs that use 8, 10, 12 or 14 bits",
    does="scales them by what the folder uses; `predict` by what the file uses",
)
PREDICTED_LEVELS = problem(
    "values",
    have="boundary or saliency predictions of 0 and 1, or 0 and 255, of any type",
    does="scores them by the same rule as labels, in `score` and `evaluate-boundaries`",
)
PREDICTED_UNITS = problem(
    "values",
    have="predictions of depth in millimetres, of normals in 0..255",
    does="prints no score until `--maps` says what they are",
)
# Many classes
WIDE_PROTOCOL = problem(
    "ids",
    have="more than 255 classes of a class map, or 254 of instances",
    does='refuses the protocol when it is made: 255 means "no label"',
)
WIDE_LABELS = problem(
    "ids",
    have="label files with ids of 256 and more, or negative ones",
    does="names the file and the id; nothing wraps around. `ids=` maps them",
)
WIDE_PREDICTIONS = problem(
    "ids",
    have="predicted ids of 256 and more, or negative ones",
    does="names the image and the id, and scores nothing",
)
WIDE_COCO = problem(
    "ids",
    have="COCO files with more than 255 categories",
    does='refuses them with their number; `other="ignore"` reads the classes of the protocol',
)
# Annotation files
COCO_CATEGORIES = problem(
    "annotations",
    have="two categories of one name or id, or categories without a name",
    does="refuses the file and names both places",
)
COCO_NO_MASK = problem(
    "annotations",
    have="annotations without a mask: empty, box-only, `null`",
    does='refuses the file; `mistakes="skip"` leaves out these images and counts them',
)
COCO_POLYGONS = problem(
    "annotations",
    have="polygons of two points, of odd length, of the wrong depth, with NaN, far outside the image",
    does="refuses the file with the place of each, before native code reads it",
)
COCO_STRANGERS = problem(
    "annotations",
    have="annotations of images or categories that are not listed",
    does="refuses the file with the place of each",
)
COCO_RUNS = problem(
    "annotations",
    have="run lengths that are negative, cut off, of another size, or do not fill the image",
    does="refuses the file with the place of each, before native code reads it",
)
COCO_IMAGES = problem(
    "annotations",
    have="images without a size, with an id twice, with a path that leaves the folder",
    does="refuses the file with the place of each",
)
COCO_FIELDS = problem(
    "annotations",
    have="ids that are repeated, fractions or `true`, `iscrowd` that is a text or 2",
    does="refuses the file with the place of each",
)
COCO_SKIP = problem(
    "annotations",
    have="a large file with a few mistakes",
    does='with `mistakes="skip"`, leaves out the images concerned and counts them by kind',
)
COCO_FILES = problem(
    "annotations",
    have="JSON that is empty, cut off, zipped, a list of results, or in another encoding",
    does="says what the file is; nothing is read from it",
)
COCO_TEXT = problem(
    "annotations",
    have="gzipped JSON, UTF-16, UTF-32, byte-order marks",
    does="reads them",
)
# Lists of ids
LISTS = problem(
    "text",
    have="byte-order marks, UTF-16, line ends of Windows and old Macs, comments, blank lines",
    does="reads the same ids from all of them",
)
LIST_PATHS = problem(
    "text",
    have="lists of file names or paths instead of ids",
    does="reads them as ids and says so once",
)
LIST_MISTAKES = problem(
    "text",
    have="Latin-1, repeated ids, several columns, quotation marks, binary files, an empty list",
    does="names the file and the line, and says what to do",
)
# Names and folders
LINKS = problem(
    "files",
    have="linked files and folders, links in a circle, links whose file is gone",
    does="follows links once; a broken link to a wanted file is an error",
)
DROPPINGS = problem(
    "files",
    have="`._a.png`, `.DS_Store`, `Thumbs.db`, `__MACOSX/`, editor copies, partial downloads",
    does="leaves them out everywhere and says how many and why",
)
UNICODE_NAMES = problem(
    "files",
    have="names in composed and decomposed Unicode",
    does="matches them; two files with one name are an error",
)
ODD_NAMES = problem(
    "files",
    have="names with braces, blanks, `%`, brackets, line feeds or leading dashes",
    does="reads them as they are",
)
CASE = problem(
    "files",
    have="endings in upper case",
    does="reads them",
)
# Sets that cannot be right
NYUD_SHIFTED = problem(
    "sets",
    have="NYUD labels that are shifted already, or of another number of classes",
    does="stops before the first step: the classes of nearly every room are absent",
)
PACKAGINGS = problem(
    "sets",
    have="class ids of another packaging of a set",
    does="stops before the first step and names a file or the absent classes",
)
ONE_CLASS = problem(
    "sets",
    have="labels of one class only",
    does="stops before the first step: a loss of 0 would look like success",
)
ALL_IGNORED = problem(
    "sets",
    have="labels without a labelled pixel",
    does="stops before the first step; single such steps are counted and said",
)
DROWNING = problem(
    "sets",
    have="a task that is over 90 % of the loss",
    does="says so, with `training.init_from_data=True` as the remedy",
)
FAR_DEPTH = problem(
    "sets",
    have="depth of 2 to 60 m, or other large values, that are not learnt",
    does="with `training.init_from_data=True`, outputs and losses start at the scale of the data",
)
CONSTANT = problem(
    "sets",
    have="a score that a constant prediction reaches too",
    does="records hold the scores of a constant predictor, by default",
)
TWO_SPLITS = problem(
    "sets",
    have="one picture in the training and the test images, under one name or two",
    does="stops before the first step and names both",
)
# Orientation
PREDICT_EXIF = problem(
    "orientation",
    have="phone photographs whose orientation is in EXIF, for `predict`",
    does="turns them upright: all eight orientations of JPEG, PNG, WebP and TIFF",
)
DATA_EXIF = problem(
    "orientation",
    have="photographs with an orientation in EXIF in a data set",
    does="reads the stored pixels, which annotators saw and labels fit",
)
# Pictures and videos to predict
OVERWRITING = problem(
    "predict",
    have="an output folder that holds the inputs, the checkpoint or earlier outputs",
    does="replaces no input, ever, and earlier outputs only with `--overwrite`",
)
OWN_NAMES = problem(
    "predict",
    have="inputs of one name from several folders, or with names that files cannot have",
    does="gives each its own name",
)
DAMAGED_INPUTS = problem(
    "predict",
    have="damaged pictures, folders called `x.png`, missing files among the inputs",
    does="predicts the others, lists these at the end, exit code 1",
)
CUT_VIDEOS = problem(
    "predict",
    have="videos without an end, without frames, or of another kind",
    does="predicts what is there and lists the file, exit code 1",
)
INPUTS = problem(
    "predict",
    have="globs, several inputs, sub-folders, lists on standard input, addresses",
    does="takes all of them",
)
JSON_LINES = problem(
    "predict",
    have="a program that reads `--json`",
    does="prints a line of JSON for each input or frame and nothing else, for videos too",
)
USELESS_OPTIONS = problem(
    "predict",
    have="options that would have no effect: `--seed`, `--resume`, `--launcher`, `--work-dir`",
    does="refuses them; `--amp` computes in mixed precision",
)
SIZES = problem(
    "predict",
    have="`--size` below one pixel, or no number",
    does="names the option and what was expected",
)
BATCHES = problem(
    "predict",
    have="many pictures of several sizes",
    does="predicts them in batches, with the results of one by one",
)
OVERLAYS = problem(
    "predict",
    have="a need for overlays, 16-bit PNG, NPY or COCO instead of panels",
    does="writes what `--save` names",
)
VIDEO_CODECS = problem(
    "predict",
    have="browsers that do not play MPEG-4 part 2",
    does="writes H.264 with the extra `video`",
)
# Checkpoints
OTHER_NETWORK = problem(
    "weights",
    have="a checkpoint with other classes, other tasks or other input channels, or of the backbone alone",
    does="`training.load_partly=True` loads what fits and lists the rest",
)
WRAPPED = problem(
    "weights",
    have='`module.`, `_orig_mod.`, `{"model": ...}`, averaged weights, two networks in a file',
    does="strips what is known and says so; of two networks one must be named",
)
FREEZING = problem(
    "weights",
    have="parts of a network that must not change",
    does="`training.freeze` keeps weights and statistics bit for bit",
)
CLASS_WEIGHTS = problem(
    "weights",
    have="rare classes that need weights",
    does="`class_weights=` of the loss; impossible ones are refused",
)
CHANNELS = problem(
    "weights",
    have="`in_chans=4` and other numbers",
    does="refused when the network is described: images are RGB throughout",
)
SICK_WEIGHTS = problem(
    "weights",
    have="a checkpoint of NaN or infinite weights",
    does="refuses it by the name of the tensor, in every command",
)
RESUME_REFUSED = problem(
    "weights",
    have="`--resume` with another optimizer, balancer, network or other tasks",
    does="names the setting, before and now, and starts nothing",
)
RESUME_SAID = problem(
    "weights",
    have="`--resume` with another seed, batch, data or number of processes",
    does="says every difference; the record keeps those that change what is learnt",
)
# Damaged and hostile files
CHANGED_FILES = problem(
    "foreign",
    have="files of every kind with changed bytes",
    does="reads them or refuses them with their name; no crash and no hang",
)
DAMAGED_PICTURES = problem(
    "foreign",
    have="pictures that are cut off, empty, or something else under that name",
    does="refuses them by name",
)
KILLED = problem(
    "foreign",
    have="a data worker that is killed or fails, a rank that is lost",
    does="ends with one line that names it, or the file and the cause",
)
MATLAB = problem(
    "foreign",
    have="damaged or cut `.mat` files",
    does="refuses them by name, before a library reads their numbers",
)
ARRAYS = problem(
    "foreign",
    have="NPY files that are zip archives, or whose header does not fit",
    does="refuses them by name",
)
MANIFESTS = problem(
    "foreign",
    have="manifests and records of another form, with huge numbers, or cut off",
    does="refuses them by name",
)
CHECKPOINT_FILES = problem(
    "foreign",
    have="checkpoints that are something else, damaged, or of other pickle protocols",
    does="reads sound ones without running code, refuses others by name",
)
CHECKSUMS = problem(
    "foreign",
    have="PNG predictions and archives with a wrong checksum",
    does="refuses them: no score from changed values",
)
BOMBS = problem(
    "foreign",
    have="small files that unpack to gigabytes",
    does="refuses them by their header; `MTVISION_LIMITS` changes limits",
)
ARCHIVES = problem(
    "foreign",
    have="archives with a large member, links, or paths that leave the folder",
    does="unpacks in parts; refuses links and such paths",
)
CACHES = problem(
    "foreign",
    have="a file that changed its content but not its name, size and time",
    does="notices it: array caches belong to the content",
)
KERNELS = problem(
    "foreign",
    have="a compiled kernel that another user may have written",
    does="does not load it and says so",
)
# What no program can know
NO_CHECKSUM = problem(
    "cannot",
    have="a changed number in NPY, BMP, PFM or plain TIFF, which have no checksum",
    does="reads the changed number; NPZ and PNG would show it",
)
WRONG_SCALE = problem(
    "cannot",
    have="a plausible but wrong `scale=`",
    does="trains; `check_dataset` prints the range, which people must judge",
)
WRONG_ORDER = problem(
    "cannot",
    have="classes of one's own set in another order than `class_names`",
    does="trains; `check_dataset` prints the share of each class by its name",
)
