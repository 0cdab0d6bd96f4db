"""Pruning on genuine weights: time to read a prompt, and colours that are still answered, with SmolLM2-135M-Instruct.

    OMP_NUM_THREADS=1 python benchmarks/smollm_pruning.py           both parts, at most 10 minutes with one thread
    python benchmarks/smollm_pruning.py questions=3 objects=3 rounds=1                            a trial of the script
    python benchmarks/smollm_pruning.py report=out/smollm_pruning/smollm_pruning.json   writes the tables into the page

Objects are lines of text. Methods run interleaved: in every round each of them reads the same prompt, and for every
batch of questions each of them answers the same ones. Results so far are written after every round and batch. See
docs/smollm.md.
"""

from __future__ import annotations

import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from full_size_report import write_between_markers
from smollm_pruning_report import OFF, Answers, Reading, markdown

import fastsam3d
from fastsam3d.basics.files import write_json, write_text
from fastsam3d.basics.options import (
    describe_options,
    option,
    optional_text,
    parse_options,
    prepare_directory,
    whole,
    words,
)
from fastsam3d.errors import UserError
from fastsam3d.mllm.scenes.rooms import Room, make_room
from fastsam3d.mllm.scenes.vocabulary import CLASSES, COLOUR_NAMES
from fastsam3d.mllm.smollm.loading import SmolLM, load_smollm
from fastsam3d.mllm.smollm.scene_text import TextPrompts, build_text_prompts

COMMAND = "smollm_pruning"
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "smollm.md"
OBJECTS_ASKED = 20  # of a room that questions are about; all of different classes
BATCH = 10  # questions that are answered at once
SPEED_SHARE = 0.4  # of the time budget, at most


def sizes(text: str) -> tuple[int, ...]:
    """Numbers of objects."""
    return tuple(whole(1)(word) for word in words(text))


def methods(text: str) -> tuple[str, ...]:
    """Presets, with `@LAYER` for another layer of the cut."""
    given = words(text)
    for method in given:
        try:
            settings_of(method)
        except ValueError as error:
            raise ValueError(f"for the layer of {method} {error}") from None
    return given


def settings_of(method: str, seed: int = 0) -> tuple[str, dict[str, Any]]:
    """Preset and changes to it that a method means; `seed` is that of random pruning."""
    preset, _, layer = method.partition("@")
    changes: dict[str, Any] = {"pruning": {"layer": whole(0)(layer)}} if layer else {}
    return preset, changes | ({"random": {"seed": seed}} if preset.startswith("random") else {})


@dataclass(frozen=True)
class Options:
    """Keys of the command line."""

    speed: tuple[str, ...] = option(
        (
            *(OFF, "fastv_35", "fastv_65", "fastv_90", "text_rows_90"),
            *("raters_90", "divprune_90", "dart_90", "pyramid", "random_90"),
        ),
        methods,
        "presets whose reading of a prompt is timed; NAME@LAYER cuts at another layer",
    )
    answers: tuple[str, ...] = option(
        (
            *(OFF, "fastv_90", "random_90", "text_rows_90", "fastv_35", "fastv_90@15", "text_rows_90@15", "oracle_90"),
            *("raters_90", "divprune_90", "dart_90", "fastv_65", "pyramid", "random_90@15"),
        ),
        methods,
        "presets that answer; NAME@LAYER cuts at another layer",
    )
    objects: tuple[int, ...] = option((18, 54), sizes, "objects of the timed prompts, 16 to 17 tokens each")
    rounds: int = option(4, whole(0), "timed rounds; one more warms up; 0: no timing")
    questions: int = option(100, whole(0), "questions; 0: none")
    threads: int = option(1, whole(1), "threads of PyTorch")
    seconds: int = option(570, whole(1), "time budget, loading included")
    output: str = option("out/smollm_pruning", str, "folder of smollm_pruning.json and smollm_pruning.md")
    report: str | None = option(None, optional_text, "a JSON file of an earlier run: only write it into the page")


@dataclass
class State:
    """What is known so far; written after every round and batch."""

    options: dict[str, Any]
    environment: dict[str, Any]
    readings: list[Reading] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def room_of_all_different(seed: int, objects: int = OBJECTS_ASKED) -> Room:
    """A room with one object of each class, so that every question has one answer. Boxes are those of other classes."""
    classes = np.random.default_rng([seed, 7]).permutation(len(CLASSES))[:objects]
    return replace(make_room(seed, objects), classes=classes)


@dataclass(frozen=True)
class ColourQuestions:
    """Questions about the colour of an object, one a room.

    Attributes:
        prompts: of the questions.
        asked: index of the object that each is about.
        colours: that answer them.
    """

    prompts: TextPrompts
    asked: list[int]
    colours: list[str]


def colour_questions(model: SmolLM, seeds: Sequence[int]) -> ColourQuestions:
    """One question about the room of each seed.

    The answer begins with the object's name, as its line does; left to itself the model answers "the" or "a".
    """
    rooms = [room_of_all_different(seed) for seed in seeds]
    asked = [int(np.random.default_rng([seed, 8]).integers(len(room))) for seed, room in zip(seeds, rooms, strict=True)]
    names = [CLASSES[room.classes[index]].name for room, index in zip(rooms, asked, strict=True)]
    colours = [COLOUR_NAMES[room.colours[index]] for room, index in zip(rooms, asked, strict=True)]
    questions, begins = [f"What colour is the {name}?" for name in names], [f"{name}:" for name in names]
    return ColourQuestions(build_text_prompts(model.tokenizer, rooms, questions, begins), asked, colours)


def first_word(answer: str) -> str:
    """The first word of an answer in small letters, without punctuation; "" without one."""
    found = re.search(r"[a-z]+", answer.lower())
    return found[0] if found else ""


class Benchmark:
    """One run of the script."""

    def __init__(self, options: Options) -> None:
        self.options, self.begin = options, time.perf_counter()
        self.folder = prepare_directory(options.output, COMMAND)
        self.model = load_smollm()
        environment = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": sys.modules["transformers"].__version__,
            "threads": torch.get_num_threads(),
        }
        self.state = State(asdict(options), environment)
        self.say(", ".join(f"{name} {value}" for name, value in environment.items()))

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.begin

    def say(self, text: str) -> None:
        """One line on stdout, at once."""
        print(f"[{self.used:6.1f} s] {text}", flush=True)

    def run(self) -> State:
        """Both parts, as far as the time goes."""
        if self.options.rounds:
            self._time_readings()
        if self.options.questions:
            self._answer_questions()
        self.write()
        return self.state

    def _time_readings(self) -> None:
        longest = 0.0
        for number in range(self.options.rounds + 1):  # round 0 warms up
            if number and self.used + longest > SPEED_SHARE * self.options.seconds:
                self.state.unfinished.append(f"{number - 1} of {self.options.rounds} timed rounds")
                return
            start = time.perf_counter()
            for objects in self.options.objects:
                prompts = build_text_prompts(
                    self.model.tokenizer, [make_room(objects, objects)], ["What colour is the lamp?"], full=True
                )
                for method in self.options.speed:
                    reading = self._read(method, prompts, objects, number)
                    if number:
                        self.state.readings.append(reading)
            longest = max(longest, time.perf_counter() - start)
            self.say(f"round {number}: {time.perf_counter() - start:.1f} s")
            self.write()

    @torch.no_grad()
    def _read(self, method: str, prompts: TextPrompts, objects: int, number: int) -> Reading:
        """Reads one prompt once, up to the first token of the answer."""
        preset, changes = settings_of(method)
        with fastsam3d.accelerate(self.model.model, preset, **changes) as acceleration:
            start = time.perf_counter()
            self.model.model(**prompts.inputs, visual=prompts.visual, use_cache=True, logits_to_keep=1)
            seconds, report = time.perf_counter() - start, acceleration.report()
        return Reading(
            method,
            objects,
            number,
            1000 * seconds,
            1000 * report.scoring_seconds,
            report.prompt_tokens,
            report.visual_tokens,
            report.pruned_share,
            report.flops_full / report.flops,
        )

    def _answer_questions(self) -> None:
        longest, seeds = 0.0, range(self.options.questions)
        for first in range(0, len(seeds), BATCH):
            if first and self.used + longest > self.options.seconds:
                self.state.unfinished.append(f"{first} of {len(seeds)} questions")
                return
            start = time.perf_counter()
            batch = colour_questions(self.model, seeds[first : first + BATCH])
            for method in self.options.answers:
                self.state.answers.append(self._answer(method, batch, first))
            longest = max(longest, time.perf_counter() - start)
            right = {a.method: sum(a.right) for a in self.state.answers[-len(self.options.answers) :]}
            self.say(f"{first + len(batch.asked)} questions; right of the last {len(batch.asked)}: {right}")
            self.write()

    def _answer(self, method: str, batch: ColourQuestions, first: int) -> Answers:
        """Answers a batch of questions; right is the colour as the first word."""
        preset, changes = settings_of(method, first)  # another draw for every batch
        given, tokenizer = batch.prompts, self.model.tokenizer
        length = given.inputs["input_ids"].shape[1]
        with fastsam3d.accelerate(self.model.model, preset, **changes) as acceleration:
            generated = self.model.model.generate(
                **given.inputs, visual=given.visual, objects=given.objects, max_new_tokens=2, do_sample=False
            )
            report, cuts = acceleration.report(), acceleration.kept() or [[] for _ in batch.asked]
        said = tokenizer.batch_decode(generated[:, length:], skip_special_tokens=True)
        right = [first_word(text) == colour for text, colour in zip(said, batch.colours, strict=True)]
        stays = [all(bool(c.kept[index]) for c in own) for own, index in zip(cuts, batch.asked, strict=True)]
        return Answers(method, right, stays, report.pruned_share, report.groups_kept / report.groups)

    def write(self) -> None:
        """The two files."""
        content = asdict(self.state)
        write_json(self.folder / "smollm_pruning.json", content)
        write_text(self.folder / "smollm_pruning.md", markdown(content))


def main(argv: list[str]) -> int:
    """The command."""
    if any(word in ("-h", "--help", "help") for word in argv):
        print(f"{__doc__}\n{describe_options(Options, 'python benchmarks/smollm_pruning.py')}")
        return 0
    options = parse_options(Options, argv, COMMAND)
    if options.report is not None:
        print(f"wrote the tables into {write_between_markers(Path(options.report), PAGE, markdown)}")
        return 0
    torch.set_num_threads(options.threads)
    state = Benchmark(options).run()
    print(f"\n{markdown(asdict(state))}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
