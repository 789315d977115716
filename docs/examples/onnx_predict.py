"""python onnx_predict.py FOLDER PICTURE OUT [THRESHOLD]: a mask in OUT and a line (class, score, box) per instance."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

EXTENT, BILINEAR = Image.Transform.EXTENT, Image.Resampling.BILINEAR
folder, file, out, threshold = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float((*sys.argv, 0.3)[4])
record = json.loads((folder / "onnx.json").read_text())
rule, names = record["input"], {category["id"]: category["name"] for category in record["categories"]}
picture = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
height, width = rule["size"] or picture.size[::-1]
if rule.get("max_size"):  # the largest size of the picture's shape within
    height, width = (int(side * min(np.divide(rule["max_size"], (height, width)))) for side in (height, width))
elif not rule["size"]:  # the shorter side becomes `shortest_edge`, unless the longer would pass `longest_edge`
    exact = min(rule["shortest_edge"], (rule["longest_edge"] or float("inf")) * min(picture.size) / max(picture.size))
    longer = int((exact if rule["exact_longest_edge"] else round(exact)) * max(picture.size) / min(picture.size))
    height, width = (longer, round(exact)) if width < height else (round(exact), longer)
onnxruntime.set_default_logger_severity(3)  # it warns of constants that it does not fold
session = onnxruntime.InferenceSession(folder / record["graph"], providers=["CPUExecutionProvider"])
feeds, method, plain = {}, Image.Resampling[rule["interpolation"].upper()], rule["resample"] == "torchvision_float"
for entry, scale in zip(session.get_inputs(), sorted({1, record["backbone_scale"]}), strict=True):
    size = width * scale, height * scale
    resized = picture.transform(size, EXTENT, (0, 0, *picture.size), method) if plain else picture.resize(size, method)
    feeds[entry.name] = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1)[None]
out.mkdir(parents=True, exist_ok=True)
for number, (box, label, score, mask) in enumerate(zip(*(each[0] for each in session.run(None, feeds)), strict=True)):
    if score >= threshold:
        low, high = np.split(box * np.tile(picture.size, 2), 2)
        print(names[int(label)], f"{score:.4f}", *(f"{side:.2f}" for side in (*low, *high)))
        grow = (record["mask_scale"] - 1) / 2 * (high - low)  # the mask lies over the box, enlarged
        low, high = (np.zeros(2), np.array(picture.size)) if record["pasted"] else (low - grow, high + grow)
        cells = np.divide(mask.shape[::-1], np.maximum(high - low, 1e-6))  # per pixel
        area = (*(1 - low * cells), *(1 + (picture.size - low) * cells))  # with a border over which the mask fades out
        whole = Image.fromarray(np.pad(mask, 1)).transform(picture.size, EXTENT, area, BILINEAR)
        Image.fromarray(np.asarray(whole) >= 0.5).save(out / f"{number}.png")
