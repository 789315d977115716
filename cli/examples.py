"""An example of each command, printed under its help."""

EXAMPLES = {
    "demo": "frozen-cache demo --out demo-out",
    "doctor": "frozen-cache doctor --device cuda",
    "init": "frozen-cache init coco",
    "run": "frozen-cache run frozen-cache.toml",
    "extract-features": r"""frozen-cache extract-features --detector hf:PekingU/rtdetr_v2_r18vd \
    --images coco/val2017 \
    --annotations coco/annotations/instances_val2017.json --out val.zarr""",
    "train-head": r"""frozen-cache train-head --cache train.zarr --val-cache val.zarr \
    --preset small-data --out run""",
    "evaluate": "frozen-cache evaluate --cache val.zarr --head run --out results",
    "convert": "frozen-cache convert my-yolo-data --out my-coco",
    "predict": "frozen-cache predict --model run pictures/ film.mp4 --out masks --save yolo",
    "export": "frozen-cache export --run run --out model --license CC-BY-4.0",
    "visualize": "frozen-cache visualize --cache val.zarr --head run --out pictures",
    "ablate": r"""frozen-cache ablate --cache train.zarr --val-cache val.zarr \
    --grid table3 --out table3""",
}


def epilog(command: str) -> str | None:
    """The end of a command's help, its lines kept as they are; None for commands without an example."""
    if command not in EXAMPLES:
        return None
    lines = EXAMPLES[command].split("\n")
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
