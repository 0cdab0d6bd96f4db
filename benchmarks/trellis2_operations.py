"""Counts the floating-point operations of TRELLIS.2's flow networks at full width, stage by stage and preset by preset.

    python benchmarks/trellis2_operations.py mode=1024_cascade tokens=9600 presets=off,exact,balanced

Which passes run is counted on the small stand-in of the tests, with the genuine steps, guidance and intervals. What a
pass costs follows from the sizes of the published networks (30 blocks, 1536 channels, conditions of 1,029 and 4,101
tokens). Presets whose policies look at the values (`adaptive_caching`) count what they did on the stand-in, whose
weights are random. Nothing is timed. Encoders and decoders are not counted. `pixal3d=true` counts Pixal3D, whose blocks
also project a condition of 1,024 channels for every token.
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
    "presets": "off,exact,balanced_12,accurate,balanced,fast,fewer_steps",
    "carving": "",
    "pixal3d": "false",
}


def full_size(stage: str, pixal3d: bool = False) -> Any:
    """Sizes of the published network of a stage."""
    from fastsam3d.diffusion.hosts.trellis2.costs import FlowSizes

    inputs = {"sparse_structure": 8, "texture_512": 64, "texture_1024": 64}.get(stage, 32)
    outputs = 8 if stage == "sparse_structure" else 32
    projected = 1024 if pixal3d else 0
    return FlowSizes(1536, 8192, 30, inputs=inputs, outputs=outputs, condition=1024, projected=projected)


def one_pass(stage: str, tokens: int, pixal3d: bool = False) -> Any:
    """FLOP of one pass of a stage, for so many tokens in the stages for 1024."""
    if stage == "sparse_structure":
        return full_size(stage, pixal3d).one_pass(STRUCTURE_TOKENS, CONDITION_TOKENS["512"])
    size = stage.partition("_")[2]
    count = tokens if size == "1024" else round(LOW_TOKENS * tokens)
    return full_size(stage, pixal3d).one_pass(count, CONDITION_TOKENS[size])


def run_report(pipeline: Any, mode: str, preset: str, overrides: dict[str, Any]) -> tuple[Any, int]:
    """Report of a run of the stand-in under a preset, and passes that a second run with the same seed takes over."""
    import warnings

    from PIL import Image

    from fastsam3d import accelerate

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with accelerate(pipeline, preset, **overrides) as acceleration:
            pipeline.run(Image.new("RGB", (16, 16), (200, 100, 50)), seed=1, pipeline_type=mode)
            report = acceleration.report()
            acceleration.reset_report()
            pipeline.run(Image.new("RGB", (16, 16), (20, 60, 200)), seed=1, pipeline_type=mode)
            kept = acceleration.report().details.get("first_pass.sparse_structure", {})
            return report, kept.get("kept_passes", 0)


def count(
    mode: str, tokens: int, names: list[str], carving: float | None = None, pixal3d: bool = False
) -> list[dict[str, Any]]:
    """One row for each preset: FLOP by stage, untouched, with exact savings alone, and as it ran."""
    import torch
    from host_stand_ins.trellis2 import Pixal3DImageTo3DPipeline, Trellis2ImageTo3DPipeline

    from fastsam3d.acceleration.presets import load_preset
    from fastsam3d.diffusion.operations import sampling_flops, saved_by_switch, unconditional_flops

    torch.manual_seed(0)
    pipeline = Pixal3DImageTo3DPipeline() if pixal3d else Trellis2ImageTo3DPipeline()
    rows: list[dict[str, Any]] = []
    own = run_report(pipeline, mode, "off", {})[0].passes
    carved = {"token_carving": {"enabled": True, "carved_fraction": carving}} if carving else {}
    for name in names:
        variants = [(name, {}), (f"{name} + carving {carving}", carved)]
        reuse = load_preset(name)["guidance_reuse"]  # it decides how the network is evaluated, as carving does
        both = carved and (not reuse.enabled or reuse.stages == "sparse_structure")
        for label, overrides in variants[: 2 if both else 1]:
            exact = load_preset(name, overrides)["exact"].switched_on
            report, kept = run_report(pipeline, mode, name, overrides)
            stages, shares = {}, {}
            next_saved = kept * unconditional_flops(one_pass("sparse_structure", tokens, pixal3d), exact)
            for stage, passes in own.items():
                parts, ran = one_pass(stage, tokens, pixal3d), report.passes[stage]
                steps = passes.conditional
                stages[stage] = {
                    "evaluations": report.stages[stage].evaluations,
                    "plain": sampling_flops(parts, passes),
                    "exact": sampling_flops(parts, passes, exact, 1, steps),
                    "computed": sampling_flops(parts, ran, exact, 1, steps),
                }
                for switch, saved in saved_by_switch(parts, passes, exact, 1, steps).items():
                    shares[switch] = shares.get(switch, 0.0) + saved
            rows.append({"preset": label, "stages": stages, "shares": shares, "next_saved": next_saved})
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


def next_text(row: dict[str, Any]) -> str:
    """What the next object with the same seed takes, beside this one."""
    plain, computed = (sum(part[key] for part in row["stages"].values()) for key in ("plain", "computed"))
    left = computed - row["next_saved"]
    return f"{left / 1e12:.0f} TFLOP, {plain / left:.2f}x less ({row['next_saved'] / plain:.2%} of the untouched run)"


def main(words: list[str]) -> int:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]
    options = DEFAULTS | dict(word.partition("=")[::2] for word in words)
    if unknown := set(options) - set(DEFAULTS):
        print(f"unknown option {min(unknown)}; known: {', '.join(DEFAULTS)}", file=sys.stderr)
        return 2
    carving = float(options["carving"]) if options["carving"] else None
    names, pixal3d = options["presets"].split(","), options["pixal3d"] == "true"
    rows = count(options["mode"], int(options["tokens"]), names, carving, pixal3d)
    print(f"{options['mode']}, {options['tokens']} tokens, TFLOP of the flow networks\n")
    print(table(rows))
    print()
    for row in rows:
        if row["next_saved"]:
            print(f"{row['preset']}, next object with the same seed: {next_text(row)}")
    for row in rows:
        if row["shares"]:
            print(f"\n{row['preset']}: exact savings, of the untouched run: {shares_text(row)}")
            break
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
