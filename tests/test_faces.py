"""Boxes, crops, and the faces that are found in a photograph and a video.

The photograph is matplotlib's. The detector's tests are skipped without the extra `faces`.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from pipeline.faces import boxes, crop, detector, shots
from tests.commands import ROOT
from tests.conftest import Command

ONNX = ROOT / "models" / "compact-votes-int8.onnx"
PHOTOGRAPH = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
extra = pytest.mark.skipif(
    not (detector.installed() and find_spec("av")), reason="without requirements-faces.txt"
)


@pytest.mark.parametrize(("which", "count"), [("full", 2304), ("short", 896)])
def test_anchors_are_as_many_as_the_detector_has_outputs(which: str, count: int) -> None:
    anchors = boxes.GEOMETRIES[which].anchors()
    assert anchors.shape == (count, 2)
    assert 0 < anchors.min() < anchors.max() < 1


def test_boxes_of_one_face_are_merged_by_score_and_others_stay() -> None:
    geometry = boxes.GEOMETRIES["full"]
    numbers, logits = np.zeros((2304, 16), np.float32), np.full(2304, -200, np.float32)
    # Anchor 0 is at (2, 2) pixels, anchor 1 at (6, 2), the last at (190, 190).
    numbers[0, :4], numbers[1, :4] = (50, 60, 40, 20), (48, 60, 40, 20)
    numbers[-1, :4] = (-30, -40, 20, 20)
    logits[[0, 1, -1]] = 2, 0, 1
    found = boxes.decode(numbers, logits, geometry, least=0.5)
    high, low = 1 / (1 + np.exp(-2)), 0.5
    middle = (52 * high + 54 * low) / (high + low)
    expected = [
        [middle - 20, 52, middle + 20, 72, high * 192],
        [150, 140, 170, 160, 192 / (1 + np.exp(-1))],
    ]
    assert found * 192 == pytest.approx(np.array(expected), abs=1e-3)
    assert boxes.decode(numbers, logits, geometry, least=0.9).shape == (0, 5)


def test_a_crop_is_larger_than_its_box_and_repeats_the_edge() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[:100] = 200
    # 1.2 times 80 pixels, moved up by 4: rows 48 to 144, of which 52 are white.
    face = crop.crop(picture, np.array([100.0, 60.0, 180.0, 140.0]))
    assert face.shape == (48, 48)
    assert (face[:, 0] > 100).sum() == 26
    corner = crop.crop(picture, np.array([-40.0, -40.0, 40.0, 40.0]))
    assert (corner > 190).all()


@extra
@pytest.mark.slow
def test_the_face_in_a_photograph_is_found_and_annotated(command: Command, store: Path) -> None:
    turned = Image.open(PHOTOGRAPH).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save("turned.jpg", exif=exif)
    done = command(
        "pipeline.predict", str(PHOTOGRAPH), "turned.jpg", runs=ONNX, format="json",
        annotate="seen", out="found.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    upright, of_turned = json.loads(Path("found.json").read_text())
    box = upright["box"]
    # By eye: the face is at 165 to 345 across and 110 to 340 down in 512x600.
    assert 140 < box["left"] < 200
    assert 300 < box["left"] + box["width"] < 370
    assert 80 < box["top"] < 200
    assert 280 < box["top"] + box["height"] < 370
    assert all(abs(of_turned["box"][name] - box[name]) < 10 for name in box)
    before = np.asarray(Image.open(PHOTOGRAPH), float)
    after = np.asarray(Image.open("seen/grace_hopper.jpg.jpg"), float)
    changed = abs(after - before).max(axis=-1) > 60
    assert changed[box["top"], box["left"] : box["left"] + box["width"]].mean() > 0.8
    assert changed[400:].mean() < 0.01


def write_video(picture: np.ndarray, frames: int, rate: int) -> None:
    """clip.mp4, of a picture (H, W, 3) that does not change."""
    import av

    with av.open("clip.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        for number in range(frames):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@extra
def test_no_frame_is_left_out_where_the_interval_is_that_of_the_frames(store: Path) -> None:
    write_video(np.zeros((48, 48, 3), np.uint8), frames=20, rate=10)
    found = list(shots.read([Path("clip.mp4")], every=0.1, failed=[]))
    assert [shot.frame for shot in found] == list(range(20))


@extra
@pytest.mark.slow
def test_a_frame_a_second_of_a_video_is_read_and_a_broken_video_is_named(
    command: Command, store: Path
) -> None:
    write_video(np.asarray(Image.open(PHOTOGRAPH)), frames=9, rate=4)
    Path("broken.mp4").write_bytes(b"no video")
    done = command(
        "pipeline.predict", "broken.mp4", "clip.mp4", runs=ONNX, format="json", out="found.json"
    )
    assert done.returncode == 2
    assert "error: broken.mp4 can't be read as a video" in done.stderr
    found = json.loads(Path("found.json").read_text())
    assert [(row["frame"], row["seconds"]) for row in found] == [(0, 0), (4, 1), (8, 2)]
