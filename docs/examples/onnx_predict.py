"""Masks from an exported graph, with numpy, Pillow and onnxruntime alone.

    python onnx_predict.py FOLDER PICTURE OUT      (FOLDER holds model.onnx and onnx.json)

Writes OUT/0.png, OUT/1.png ... and prints a line for each: class, score, box in pixels.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def resized_size(rule, width, height):
    if rule["size"]:
        return rule["size"][1], rule["size"][0]
    short, long, edge = min(width, height), max(width, height), rule["shortest_edge"]
    exact = edge
    if rule["longest_edge"] and long / short * edge > rule["longest_edge"]:
        exact = rule["longest_edge"] * short / long
        edge = round(exact)
    longer = int((exact if rule["exact_longest_edge"] else edge) * long / short)
    return (width, height) if short == edge else (edge, longer) if width < height else (longer, edge)


def resize(picture, rule, size):
    if rule["resample"] == "torchvision_float":  # floats, without antialiasing
        low = Image.Transform.AFFINE
        scale = (picture.width / size[0], 0, 0, 0, picture.height / size[1], 0)
        bands = [band.convert("F").transform(size, low, scale, Image.Resampling[rule["interpolation"].upper()])
                 for band in picture.split()]  # fmt: skip
        return np.stack([np.asarray(band) for band in bands])
    return np.asarray(picture.resize(size, Image.Resampling[rule["interpolation"].upper()])).transpose(2, 0, 1)


def main(folder, file, out, threshold=0.3):
    record = json.loads((Path(folder) / "onnx.json").read_text())
    picture = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    width, height = resized_size(record["input"], *picture.size)
    sizes = [(width * scale, height * scale) for scale in sorted({1, record["backbone_scale"]})]
    session = onnxruntime.InferenceSession(str(Path(folder) / record["graph"]), providers=["CPUExecutionProvider"])
    pixels = [resize(picture, record["input"], size)[None].astype(np.float32) for size in sizes]
    feeds = dict(zip([entry.name for entry in session.get_inputs()], pixels, strict=True))
    boxes, labels, scores, masks = (output[0] for output in session.run(None, feeds))
    names = {category["id"]: category["name"] for category in record["categories"]}
    Path(out).mkdir(parents=True, exist_ok=True)
    for number in np.flatnonzero(scores >= float(threshold)):
        x0, y0, x1, y1 = box = boxes[number] * np.tile(picture.size, 2)
        print(names[int(labels[number])], f"{scores[number]:.4f}", *(f"{side:.2f}" for side in box))
        if not record["pasted"]:  # the mask lies over the box, enlarged about its centre
            grow = (record["mask_scale"] - 1) / 2
            x0, x1 = x0 - grow * (x1 - x0), x1 + grow * (x1 - x0)
            y0, y1 = y0 - grow * (y1 - y0), y1 + grow * (y1 - y0)
        else:
            x0, y0, x1, y1 = 0, 0, *picture.size
        rows, columns = masks[number].shape
        padded = Image.fromarray(np.pad(masks[number], 1))  # fades out over half a cell at its border
        fit = columns / (x1 - x0), 0, 1 - x0 * columns / (x1 - x0), 0, rows / (y1 - y0), 1 - y0 * rows / (y1 - y0)
        whole = padded.transform(picture.size, Image.Transform.AFFINE, fit, Image.Resampling.BILINEAR)
        Image.fromarray(np.asarray(whole) >= 0.5).save(Path(out) / f"{number}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
