"""The result of a benchmark, bench.json, made from the records of its measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.basics.files import finite
from fastsam3d.basics.record_log import Record, RecordLog, read_log
from fastsam3d.errors import UserError
from fastsam3d.evaluation.measuring.methods import REFERENCES
from fastsam3d.evaluation.reporting.tables import summarise

RECORDS, RESULT = "records.jsonl", "bench.json"
SCHEMA = 1
"""Version of bench.json; docs/bench.schema.json describes it."""
PROTOCOL = (
    "Seconds from image and mask in memory to mesh in memory, device synchronised, attaching and metrics "
    "excluded; one process, methods interleaved object by object in rotating order, warm-up objects "
    "excluded; same noise for every method. speedup: ratio of total seconds; cpu_speedup: of total "
    "processor seconds, which a busy machine disturbs less. ssim, psnr, mask_iou: renders from 8 views against "
    "renders of the truth, where either silhouette is. cd, f1: {points} area-uniform surface points "
    "each, both surfaces normalised separately to [-1, 1] by bounding box, no alignment; cd is the mean "
    "of both directed mean distances, not squared; f1 in percent. viou: solids on a 64^3 grid in the "
    "object frame; surface_viou: 64^3 occupancy of the surface points. iou_3d: axis-aligned boxes of the "
    "posed objects in the camera frame. fidelity_* and layout_distance compare with off for the same "
    "object and noise, limit_* with the converged solution for that noise; layout_distance is the root mean "
    "square displacement of the corners of off's box "
    "over its diagonal. *_ci: 95 % limits of the paired difference to off, of the mean itself for "
    "fidelity and layout. nfe: network evaluations, conditional and unconditional. tflop: operations of the "
    "networks, two a multiply-add. fewer_steps@NAME: the fewest plain steps, object by object, that take at least "
    "as many network evaluations in each stage as NAME did, on the exact tier; fewer_steps alone is matched to "
    "balanced."
)


def result_of(log: RecordLog, seeds: Sequence[int] | None = None) -> Record:
    """bench.json from the records: of the objects with these seeds, or of all that were measured."""
    identity = log.identity
    objects = _flattened(log, "object", None if seeds is None else set(seeds))
    names = [name for name in [*identity["methods"], *REFERENCES] if any(r["method"] == name for r in objects)]
    rows = []
    for guidance in dict.fromkeys(record["guidance"] for record in objects):
        tables = {name: [r for r in objects if (r["method"], r["guidance"]) == (name, guidance)] for name in names}
        scenes = [r for r in _flattened(log, "scene") if r["guidance"] == guidance]
        for name in names:
            row = summarise(name, tables[name], tables["off"], scenes=scenes)
            rows.append({**row, "guidance": guidance, "timed": name not in REFERENCES})
    meta = {key: value for key, value in identity.items() if key != "methods"}
    meta.update(
        schema=SCHEMA,
        objects=len({record["object_seed"] for record in objects}),
        scenes=len({record["scene_seed"] for record in log.select(kind="scene")}),
        method_settings={name: _switched_on(settings) for name, settings in identity["methods"].items()},
        left_out={record["method"]: record["reason"] for record in log.select(kind="left_out")},
        protocol=PROTOCOL.format(points=identity["points"]),
    )
    return {"rows": rows, "meta": meta, "objects": objects}


def load_result(folder: Path) -> Record:
    """The result in a folder, made from its records where the run was interrupted before it wrote one.

    Raises:
        UserError: there is neither.
    """
    path, log = folder / RESULT, folder / RECORDS
    if log.is_file() and (not path.is_file() or path.stat().st_mtime < log.stat().st_mtime):
        kept = RecordLog(None, {})
        kept.identity, kept.records = read_log(log)
        if kept.select(kind="object"):
            return finite(result_of(kept))
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        result["rows"], result["meta"]
    except OSError:
        raise UserError(f"bench: report={folder} has no {RESULT}: give the output folder of a benchmark") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"bench: {path} is not the result of a benchmark: measure again") from None
    return result


def _switched_on(settings: Mapping[str, Any]) -> Record:
    """Settings without those of groups that are off."""
    return {k: v for k, v in settings.items() if not (isinstance(v, Mapping) and v.get("enabled") is False)}


def _flattened(log: RecordLog, kind: str, seeds: set[int] | None = None) -> list[Record]:
    """One record a method, of all units of a kind."""
    return [
        {key: value for key, value in unit.items() if key not in ("kind", "methods")} | record
        for unit in log.select(kind=kind)
        if seeds is None or unit["object_seed"] in seeds
        for record in unit["methods"]
    ]
