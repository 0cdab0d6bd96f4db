"""Counts the floating-point operations of TRELLIS.2's flow networks at full width, stage by stage and preset by preset.

    python benchmarks/trellis2_operations.py mode=1024_cascade tokens=9600 presets=off,exact,balanced

Which passes run is counted on the small stand-in of the tests, with the genuine steps, guidance and intervals. What a
pass costs follows from the sizes of the published networks (30 blocks, 1536 channels, conditions of 1,029 and 4,101
tokens). Presets whose policies look at the values (`adaptive_caching`) count what they did on the stand-in, whose
weights are random. Nothing is timed. Encoders and decoders are not counted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STRUCTURE_TOKENS = 16**3
CONDITION_TOKENS = {"512": 1029, "1024": 4101}
LOW_TOKENS = 0.25
"""Tokens of the network for 512, in those of the network for 1024: a surface on half the grid."""
DEFAULTS = {
    "mode": "1024_cascade",
    "tokens": "9600",
    "presets": "off,exact,balanced,fast,fewer_steps",
    "carving": "",
}


def full_size(stage: str) -> Any:
    """Sizes of the published network of a stage."""
    from fastsam3d.diffusion.hosts.trellis2.costs import FlowSizes

    inputs = {"sparse_structure": 8, "texture_512": 64, "texture_1024": 64}.get(stage, 32)
    outputs = 8 if stage == "sparse_structure" else 32
    return FlowSizes(width=1536, hidden=8192, blocks=30, inputs=inputs, outputs=outputs, condition=1024)


def one_pass(stage: str, tokens: int) -> Any:
    """FLOP of one pass of a stage, for so many tokens in the stages for 1024."""
    if stage == "sparse_structure":
        return full_size(stage).one_pass(STRUCTURE_TOKENS, CONDITION_TOKENS["512"])
    size = stage.partition("_")[2]
    count = tokens if size == "1024" else round(LOW_TOKENS * tokens)
    return full_size(stage).one_pass(count, CONDITION_TOKENS[size])


def run_report(pipeline: Any, mode: str, preset: str, overrides: dict[str, Any]) -> Any:
    """Report of a run of the stand-in under a preset."""
    import warnings

    from PIL import Image

    from fastsam3d import accelerate

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with accelerate(pipeline, preset, **overrides) as acceleration:
            pipeline.run(Image.new("RGB", (16, 16), (200, 100, 50)), seed=1, pipeline_type=mode)
            return acceleration.report()


def count(mode: str, tokens: int, names: list[str], carving: float | None = None) -> list[dict[str, Any]]:
    """One row for each preset: FLOP by stage, untouched, with exact savings alone, and as it ran."""
    import torch
    from host_stand_ins.trellis2 import Trellis2ImageTo3DPipeline

    from fastsam3d.acceleration.presets import load_preset
    from fastsam3d.diffusion.operations import sampling_flops, saved_by_switch

    torch.manual_seed(0)
    pipeline, rows = Trellis2ImageTo3DPipeline(), []
    own = run_report(pipeline, mode, "off", {}).passes
    carved = {"token_carving": {"enabled": True, "carved_fraction": carving}} if carving else {}
    for name in names:
        variants = [(name, {}), (f"{name} + carving {carving:g}", carved)]
        reuse = load_preset(name)["guidance_reuse"]  # it decides how the network is evaluated, as carving does
        both = carved and (not reuse.enabled or reuse.stages == "sparse_structure")
        for label, overrides in variants[: 2 if both else 1]:
            exact = load_preset(name, overrides)["exact"].switched_on
            report = run_report(pipeline, mode, name, overrides)
            stages, shares = {}, {}
            for stage, passes in own.items():
                parts, ran = one_pass(stage, tokens), report.passes[stage]
                steps = passes.conditional
                stages[stage] = {
                    "evaluations": report.stages[stage].evaluations,
                    "plain": sampling_flops(parts, passes),
                    "exact": sampling_flops(parts, passes, exact, 1, steps),
                    "computed": sampling_flops(parts, ran, exact, 1, steps),
                }
                for switch, saved in saved_by_switch(parts, passes, exact, 1, steps).items():
                    shares[switch] = shares.get(switch, 0.0) + saved
            rows.append({"preset": label, "stages": stages, "shares": shares})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, in TFLOP."""
    stages = list(rows[0]["stages"])
    head = ["preset", "evaluations", *stages, "all", "less", "exactly"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        parts = row["stages"].values()
        plain, exact, computed = (sum(part[key] for part in parts) for key in ("plain", "exact", "computed"))
        cells = [row["preset"], str(sum(part["evaluations"] for part in parts))]
        cells += [f"{part['computed'] / 1e12:.0f}" for part in parts]
        cells += [f"{computed / 1e12:.0f}", f"{plain / computed:.2f}x", f"{1 - exact / plain:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shares_text(row: dict[str, Any]) -> str:
    """What each exact saving spares, as a share of the untouched run."""
    plain = sum(part["plain"] for part in row["stages"].values())
    return ", ".join(f"{name} {saved / plain:.2%}" for name, saved in row["shares"].items() if saved > 0)


def main(words: list[str]) -> int:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]
    options = DEFAULTS | dict(word.partition("=")[::2] for word in words)
    if unknown := set(options) - set(DEFAULTS):
        print(f"unknown option {min(unknown)}; known: {', '.join(DEFAULTS)}", file=sys.stderr)
        return 2
    carving = float(options["carving"]) if options["carving"] else None
    rows = count(options["mode"], int(options["tokens"]), options["presets"].split(","), carving)
    print(f"{options['mode']}, {options['tokens']} tokens, TFLOP of the flow networks\n")
    print(table(rows))
    for row in rows:
        if row["shares"]:
            print(f"\n{row['preset']}: exact savings, of the untouched run: {shares_text(row)}")
            break
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
