"""`mtvision predict` as a person uses it: a checkpoint, and whatever files there are."""

from __future__ import annotations

import io
import json
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler

import cv2
import data_problems as problems
import numpy as np
import pytest
from people import photo, write_checkpoint, write_photo, write_video
from PIL import Image

from mtvision.cli.main import call, command_line
from mtvision.evaluation.predict import download, session
from mtvision.evaluation.predict.download import DownloadError, downloaded


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_checkpoint(tmp_path_factory.mktemp("network")))


@pytest.fixture
def predict(checkpoint, tmp_path, capsys):
    """Runs the command with `--json`: (exit code, {input: line}, text on stderr)."""

    def run(*arguments, out="out"):
        words = [*map(str, arguments), "--out", str(tmp_path / out), "--json"]
        code = call("predict", [checkpoint, *words])
        printed, told = capsys.readouterr()
        lines = [json.loads(line) for line in printed.splitlines()]
        return code, {line["input"]: line for line in lines}, told

    return run


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_checkpoint_is_enough(checkpoint, tmp_path, capsys):
    path = write_photo(tmp_path / "a.jpg", height=50, width=70)
    assert call("predict", [checkpoint, str(path), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"1 of 1 inputs, 2 files in {tmp_path / 'out'}\n"
    assert files_below(tmp_path / "out") == ["a.npz", "a.png"]
    maps = np.load(tmp_path / "out/a.npz", allow_pickle=False)
    assert (maps["semseg"].shape, maps["semseg"].dtype) == ((50, 70), np.uint8)
    assert maps["depth"].shape == (1, 50, 70)


@problems.JSON_LINES
def test_each_line_of_json_is_one_input(predict, tmp_path):
    a, b = write_photo(tmp_path / "in/a.png", height=20, width=30), write_photo(tmp_path / "in/sub/b.png")
    code, lines, told = predict(tmp_path / "in")
    assert code == 0
    assert list(lines) == [str(a), str(b)]
    line = lines[str(a)]
    assert line["outputs"] == [str(tmp_path / "out/a.png"), str(tmp_path / "out/a.npz")]
    assert line["size"] == [20, 30]
    assert line["seconds"] > 0
    assert sum(line["tasks"]["semseg"]["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert line["tasks"]["depth"]["min"] <= line["tasks"]["depth"]["mean"] <= line["tasks"]["depth"]["max"]
    assert "predict: 2 of 2" in told


@problems.DAMAGED_INPUTS
def test_what_cannot_be_read_is_listed_at_the_end_and_the_rest_continues(predict, tmp_path):
    good = [write_photo(tmp_path / "in" / name) for name in ("a.png", "d.png")]
    (tmp_path / "in/b.png").write_bytes(good[0].read_bytes()[:-20])
    (tmp_path / "in/c.jpg").write_text("no picture")
    (tmp_path / "in/film.mp4").write_bytes(b"no film")
    code, lines, told = predict(tmp_path / "in", tmp_path / "gone.png", "--batch", "3")
    assert code == 1
    assert files_below(tmp_path / "out") == ["a.npz", "a.png", "d.npz", "d.png"]
    failed = {name.rsplit("/", 1)[-1] for name, line in lines.items() if "error" in line}
    assert failed == {"b.png", "c.jpg", "film.mp4", "gone.png"}
    *_, title, first, second, third, fourth = told.splitlines()
    assert title == "mtvision predict: 4 of 6 inputs are missing, damaged or incomplete:"
    assert all("in/" in text or "gone" in text for text in (first, second, third, fourth))
    assert "truncated" in told
    assert "Traceback" not in told


@problems.PREDICT_EXIF
def test_pictures_are_predicted_upright(predict, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(photo()))).save(tmp_path / "side.png", exif=exif)
    Image.fromarray(photo()).save(tmp_path / "upright.png")
    assert predict(tmp_path / "side.png", tmp_path / "upright.png")[0] == 0
    side, upright = (np.load(tmp_path / f"out/{name}.npz") for name in ("side", "upright"))
    for task in ("semseg", "depth"):
        np.testing.assert_array_equal(side[task], upright[task])


@pytest.mark.parametrize("batch", [2, 3, 8])
@problems.BATCHES
def test_batches_change_nothing(batch, predict, tmp_path):
    for index, size in enumerate([(24, 40), (24, 40), (40, 24), (24, 40), (30, 30)]):
        write_photo(tmp_path / f"in/{index}.png", seed=index, height=size[0], width=size[1])
    assert predict(tmp_path / "in")[0] == 0
    assert predict(tmp_path / "in", "--batch", batch, out="batched")[0] == 0
    for index in range(5):
        alone, together = (np.load(tmp_path / out / f"{index}.npz") for out in ("out", "batched"))
        np.testing.assert_allclose(alone["depth"], together["depth"], atol=1e-5)
        assert (alone["semseg"] != together["semseg"]).mean() < 0.01


@problems.BATCHES
def test_one_image_cannot_spoil_its_batch(predict, tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        write_photo(tmp_path / f"in/{name}.png", seed=ord(name))
    bad = photo(seed=ord("b"))
    whole = session.Predictor.batch

    def batch(self, images, context=None, **options):
        if any(np.array_equal(image, bad) for image in images):
            raise RuntimeError("out of memory")
        return whole(self, images, context, **options)

    monkeypatch.setattr(session.Predictor, "batch", batch)
    code, lines, _ = predict(tmp_path / "in", "--batch", "3")
    assert code == 1
    assert [line.get("error", "") for line in lines.values()] == [
        "", f"{tmp_path / 'in/b.png'}: RuntimeError: out of memory", "",
    ]  # fmt: skip


@problems.OVERLAYS
def test_every_kind_of_output(predict, tmp_path):
    path = write_photo(tmp_path / "a.png")
    code, lines, _ = predict(path, "--save", "panel,overlay,npz,npy,png,coco")
    assert code == 0
    written = files_below(tmp_path / "out")
    assert written == [
        "a.npz", "a.png", "coco/semseg.json", "depth/a.npy", "depth/a.png",
        "overlay/depth/a.png", "overlay/semseg/a.png", "semseg/a.npy", "semseg/a.png",
    ]  # fmt: skip
    assert sorted(lines[str(path)]["outputs"]) == sorted(str(tmp_path / "out" / name) for name in written)
    maps = np.load(tmp_path / "out/a.npz")
    png = cv2.imread(str(tmp_path / "out/depth/a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(png / 1000, maps["depth"][0], atol=6e-4)
    np.testing.assert_array_equal(np.load(tmp_path / "out/semseg/a.npy"), maps["semseg"])
    assert cv2.imread(str(tmp_path / "out/overlay/semseg/a.png")).shape == (24, 40, 3)


def test_only_the_tasks_that_are_asked_for(predict, tmp_path, checkpoint, capsys):
    path = write_photo(tmp_path / "a.png")
    assert predict(path)[0] == 0
    code, lines, _ = predict(path, "--tasks", "depth", out="one")
    assert (code, list(lines[str(path)]["tasks"])) == (0, ["depth"])
    both, one = (np.load(tmp_path / out / "a.npz") for out in ("out", "one"))
    assert one.files == ["depth"]
    np.testing.assert_array_equal(both["depth"], one["depth"])
    for tasks, message in (("depht", "Did you mean 'depth'"), ("", "Name at least one task")):
        assert call("predict", [checkpoint, str(path), "--out", str(tmp_path / "x"), "--tasks", tasks]) == 2
        assert message in capsys.readouterr().err


@problems.USELESS_OPTIONS
def test_mixed_precision_is_another_computation(predict, tmp_path):
    path = write_photo(tmp_path / "a.png")
    assert predict(path)[0] == 0
    assert predict(path, "--amp", out="amp")[0] == 0
    full, half = (np.load(tmp_path / out / "a.npz")["depth"] for out in ("out", "amp"))
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(full, half, atol=0.05)


@problems.OVERWRITING
def test_earlier_outputs_stay_unless_asked(predict, checkpoint, tmp_path, capsys):
    path = write_photo(tmp_path / "a.png")
    assert predict(path)[0] == 0
    before = (tmp_path / "out/a.npz").read_bytes()
    assert call("predict", [checkpoint, str(path), "--out", str(tmp_path / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert predict(path, "--overwrite", "--size", "16", "16")[0] == 0
    assert (tmp_path / "out/a.npz").read_bytes() != before


@problems.OVERWRITING
def test_an_input_is_not_replaced_by_its_panel(checkpoint, tmp_path, capsys):
    path = write_photo(tmp_path / "a.png")
    before = path.read_bytes()
    assert call("predict", [checkpoint, str(path), "--out", str(tmp_path), "--overwrite"]) == 2
    assert "would replace" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert files_below(tmp_path) == ["a.png"]


MISTAKES = {
    "the old order": (["config.py", "INPUT"], "expected a checkpoint first"),
    "no such checkpoint": (["gone.pth", "INPUT"], "gone.pth does not exist"),
    "no such input": (["CHECKPOINT", "gone.png"], "gone.png does not exist"),
    "a device": (["CHECKPOINT", "INPUT", "--device", "warp"], "--device warp: "),
    "no GPU": (["CHECKPOINT", "INPUT", "--device", "cuda:77"], "--device cuda:77: "),
    "fp16": (["CHECKPOINT", "INPUT", "--amp", "fp16"], "fp16 needs a GPU"),
    "a kind": (["CHECKPOINT", "INPUT", "--save", "pannel"], "Did you mean 'panel'"),
    "coco of depth": (["CHECKPOINT", "INPUT", "--save", "coco", "--tasks", "depth"], "the tasks are depth"),
    "a budget": (["CHECKPOINT", "INPUT", "--budget", "0.5"], "tools/controllable.py"),
    "out is a file": (["CHECKPOINT", "INPUT", "--out", "INPUT"], "is a file; expected a folder"),
    "a config": (["CHECKPOINT", "INPUT", "--config", "gone.py"], "gone.py does not exist"),
    "an option": (["CHECKPOINT", "INPUT", "--cfg-options", "modle.x=1"], "Did you mean 'model'"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_told_before_any_work(kind, checkpoint, tmp_path, capsys):
    arguments, message = MISTAKES[kind]
    places = {"CHECKPOINT": checkpoint, "INPUT": str(write_photo(tmp_path / "a.png"))}
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
    assert command_line(["predict", *(places.get(item, item) for item in arguments), *out]) == 2
    printed, told = capsys.readouterr()
    assert message in told
    assert printed == ""
    assert not (tmp_path / "out").exists()


REFUSED = {
    "negative": (["--size", "-5", "5"], "expected an integer of at least 1, got '-5'"),
    "zero": (["--size", "0", "5"], "expected an integer of at least 1, got '0'"),
    "text": (["--size", "a", "5"], "expected an integer of at least 1, got 'a'"),
    "tile": (["--tile", "0", "5"], "expected an integer of at least 1, got '0'"),
    "one side": (["--tile", "64"], "expected 2 arguments"),
    "batch": (["--batch", "0"], "expected an integer of at least 1, got '0'"),
    "frames": (["--frames", "1.5"], "expected an integer of at least 1, got '1.5'"),
    **{
        name: ([f"--{name}", "1"], "unrecognized arguments")
        for name in ("seed", "resume", "launcher", "work-dir")
    },
}


ROWS = [
    (problems.SIZES, ["negative", "zero", "text", "tile", "one side"]),
    (problems.USELESS_OPTIONS, ["seed", "resume", "launcher", "work-dir"]),
]


@pytest.mark.parametrize("kind", problems.marked(REFUSED, ROWS))
def test_options_that_mean_nothing_are_refused(kind, capsys):
    options, message = REFUSED[kind]
    with pytest.raises(SystemExit) as error:
        call("predict", ["a.pth", "a.png", "--out", "out", *options])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_weights_without_a_config_need_one(tmp_path, capsys):
    weights, path = write_checkpoint(tmp_path, with_config=False), write_photo(tmp_path / "a.png")
    arguments = [str(weights), str(path), "--out", str(tmp_path / "out")]
    assert call("predict", arguments) == 2
    assert "holds weights only, no config" in capsys.readouterr().err
    assert call("predict", [*arguments, "--config", str(tmp_path / "discs_config.py")]) == 0


def test_tiles_are_predicted_at_the_pictures_own_resolution(predict, tmp_path):
    path = write_photo(tmp_path / "a.png", height=100, width=150)
    code, lines, _ = predict(path, "--tile", "64", "96", "--overlap", "24", "--save", "npz")
    assert code == 0
    assert lines[str(path)]["size"] == [100, 150]
    with np.load(tmp_path / "out/a.npz", allow_pickle=False) as maps:
        assert maps["depth"].shape == (1, 100, 150)
        assert np.isfinite(maps["depth"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile", "64", "64", "--overlap", "64"], "overlap: expected 0 to 63 pixels"),
        (["--overlap", "8"], "overlap: found 8 without tiles"),
        (["--tile", "64", "64", "--size", "32", "32"], "tile and size exclude one another"),
    ],
)
def test_tiles_that_make_no_sense_end_the_command_in_one_line(options, message, checkpoint, tmp_path, capsys):
    path = write_photo(tmp_path / "a.png")
    assert command_line(["predict", checkpoint, str(path), "--out", str(tmp_path / "out"), *options]) == 2
    line, *rest = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert rest == ["(MTVISION_TRACEBACK=1 shows where.)"]


@pytest.mark.parametrize("frames", [None, 2])
@problems.JSON_LINES
def test_a_video_becomes_a_video(frames, predict, tmp_path):
    film = write_video(tmp_path / "film.avi")
    options = ["--frames", frames] if frames else []
    code, lines, told = predict(film, "--batch", "2", *options)
    assert code == 0
    assert files_below(tmp_path / "out") == ["film.mp4"]
    assert lines[str(film)]["frames"] == (frames or 3)
    assert sum(lines[str(film)]["tasks"]["semseg"]["shares"].values()) == pytest.approx(1, abs=1e-4)
    capture = cv2.VideoCapture(str(tmp_path / "out/film.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == (frames or 3)
    assert "predict: 1 of 1" in told


def test_every_kind_of_output_of_a_video(predict, tmp_path):
    film = write_video(tmp_path / "film.avi", 2)
    code, lines, _ = predict(film, "--save", "panel,overlay,npz,npy,png,coco", "--tasks", "semseg")
    assert code == 0
    written = files_below(tmp_path / "out")
    frames = [f"semseg/film/{index:06d}.{ending}" for index in (0, 1) for ending in ("npy", "png")]
    assert written == [
        "coco/semseg.json", "film.mp4", "film/000000.npz", "film/000001.npz",
        "overlay/semseg/film.mp4", *frames,
    ]  # fmt: skip
    assert sorted(lines[str(film)]["outputs"]) == sorted(str(tmp_path / "out" / name) for name in written)
    assert predict(film, "--save", "npz", "--overwrite")[0] == 0


@problems.CUT_VIDEOS
def test_a_cut_video_is_predicted_as_far_as_it_is_there(predict, tmp_path):
    film = write_video(tmp_path / "film.avi", 20)
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 4 // 5])
    photo_after = write_photo(tmp_path / "z.png")
    code, lines, _ = predict(film, photo_after, "--batch", "4")
    assert code == 1
    assert "of 20 frames" in lines[str(film)]["error"]
    assert 0 < lines[str(film)]["frames"] < 20
    assert files_below(tmp_path / "out") == ["film.mp4", "z.npz", "z.png"]


class Camera:
    """Yields frames until someone presses Ctrl-C."""

    rate = 10.0

    def __init__(self, source, name, limit):
        self.number, self.limit = source, limit

    def __iter__(self):
        yield from [photo()] * (self.limit or 3)
        if not self.limit:
            raise KeyboardInterrupt


@pytest.mark.parametrize("options", [[], ["--frames", "3"]])
def test_a_camera_ends_with_ctrl_c_or_after_some_frames(options, predict, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "Frames", Camera)
    code, lines, _ = predict("camera:0", *options)
    assert (code, lines["camera:0"]["frames"]) == (0, 3)
    assert cv2.VideoCapture(str(tmp_path / "out/camera0.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


@problems.INPUTS
def test_standard_input_names_the_inputs(predict, tmp_path, monkeypatch):
    path = write_photo(tmp_path / "a b.png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{path}\n".encode())))
    assert predict("-")[0] == 0
    assert files_below(tmp_path / "out") == ["a b.npz", "a b.png"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Cut(BaseHTTPRequestHandler):
    """States 1000 bytes and sends 10."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(handler):
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@problems.INPUTS
def test_addresses_are_downloaded(predict, serve, tmp_path):
    write_photo(tmp_path / "www/a photo.png")
    write_video(tmp_path / "www/film.avi")
    (tmp_path / "www/text.png").write_text("no picture")
    host = serve(partial(Quiet, directory=str(tmp_path / "www")))
    names = ["a%20photo.png", "film.avi", "text.png", "gone.png"]
    code, lines, _ = predict(*(f"{host}/{name}" for name in names))
    assert code == 1
    assert files_below(tmp_path / "out") == ["a photo.npz", "a photo.png", "film.mp4"]
    assert lines[f"{host}/text.png"]["error"].startswith(f"{host}/text.png: no picture")
    assert lines[f"{host}/gone.png"]["error"].startswith(f"{host}/gone.png: the server answers 404")


def test_downloads_are_limited_and_whole(serve, tmp_path):
    write_photo(tmp_path / "a.png", height=300)
    host = serve(partial(Quiet, directory=str(tmp_path)))
    with downloaded(f"{host}/a.png", ".png") as path:
        assert path.read_bytes() == (tmp_path / "a.png").read_bytes()
    assert not path.exists()
    with pytest.raises(DownloadError, match="larger than 0 MiB"), downloaded(f"{host}/a.png", "", limit=1000):
        pass
    with pytest.raises(DownloadError, match="10 of 1000 bytes|broke off"), downloaded(serve(Cut), ""):
        pass


def test_without_a_network_the_message_says_so(predict, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 1.0)
    code, lines, _ = predict("http://127.0.0.1:9/a.png")
    assert code == 1
    assert "cannot be reached" in lines["http://127.0.0.1:9/a.png"]["error"]
    assert "Check the address and the network" in lines["http://127.0.0.1:9/a.png"]["error"]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3, 2)])
def test_very_small_and_thin_images(size, predict, tmp_path):
    path = write_photo(tmp_path / "a.png", height=size[0], width=size[1])
    code, lines, _ = predict(path, "--save", "panel,overlay,npz")
    assert code == 0, lines
    assert np.load(tmp_path / "out/a.npz")["semseg"].shape == size


def test_a_full_disk_is_one_line_and_not_the_end(predict, tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_photo(tmp_path / f"in/{name}.png")

    def full(path, *_):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("mtvision.evaluation.predict.writing.write_picture", full)
    code, lines, told = predict(tmp_path / "in")
    assert code == 1
    assert told.count("No space left on device") == 2
    assert all(str(tmp_path / "in") in line["error"] for line in lines.values())
